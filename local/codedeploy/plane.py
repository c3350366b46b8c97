"""The CodeDeploy plane: the service and the agents of the account's instances."""

from __future__ import annotations

from local.codedeploy.dispatcher import Dispatcher


class CodeDeployPlane:
    """Starts after the account's API, whose EC2 and S3 the deployments use."""

    name = "codedeploy"

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._state = "stopped"

    def start(self) -> None:
        """End the deployments that the account's last life left unfinished."""
        self._dispatcher.fail_interrupted()
        self._state = "ready"

    def stop(self) -> None:
        """Kill running hook scripts."""
        self._dispatcher.shut_down()
        self._state = "stopped"

    def state(self) -> str:
        """Return `ready` or `stopped`."""
        return self._state
