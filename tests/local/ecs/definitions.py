"""A task definition of one container, for the tests beside this file."""

DEFINITION = {
    "family": "job",
    "cpu": "256",
    "memory": "512",
    "networkMode": "awsvpc",
    "containerDefinitions": [{"name": "main", "image": "image", "essential": True}],
}
