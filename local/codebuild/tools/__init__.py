"""Stand-ins for tools of CodeBuild's images, on the path of a build's commands.

Each does what buildspecs of this project ask of the real one, and refuses everything else by name.
"""
