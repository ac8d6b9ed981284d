"""Runs LocalStack's Step Functions engine, which enforces heartbeats and timeouts, and mends what it answers.

It is told where by LocalStack's own variable GATEWAY_LISTEN. What it answers about tasks that are closed is not what AWS
does: LocalStack completes a task twice as long as its execution runs, and calls its token invalid afterwards; AWS answers
TaskTimedOut to both. Nor does it check the sizes and the JSON of what completes a task. And it may miss that a task was
completed at once.
"""

import ipaddress
import json
import os
import socket
import sys

for name in [name for name in os.environ if name.startswith("AWS_")]:
    del os.environ[name]
os.environ.update(
    SERVICES="stepfunctions,sts",
    STRICT_SERVICE_LOADING="1",
    EAGER_SERVICE_LOADING="1",
    DISABLE_EVENTS="1",
    SKIP_SSL_CERT_DOWNLOAD="1",
    DISABLE_TRANSPARENT_ENDPOINT_INJECTION="1",
    DNS_ADDRESS="0",
    LS_LOG="warning",
)


def is_loopback(host):
    try:
        return host in ("localhost", "") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def stay_on_this_machine():
    """Lets nobody in here call anybody else, and nobody else call in: no usage statistics, no update checks, no downloads."""
    connect, bind, resolve = socket.socket.connect, socket.socket.bind, socket.getaddrinfo

    def guarded_bind(self, address):
        # LocalStack listens at every address, whatever GATEWAY_LISTEN says.
        if self.family == socket.AF_INET and address[0] in ("", "0.0.0.0"):
            address = ("127.0.0.1", address[1])
        return bind(self, address)

    def guarded_connect(self, address):
        if self.family != socket.AF_UNIX and not is_loopback(address[0]):
            raise ConnectionRefusedError(f"the tests' Step Functions engine does not call {address[0]}")
        return connect(self, address)

    def guarded_resolve(host, *args, **kwargs):
        name = host.decode() if isinstance(host, bytes) else host
        if name and name != "0.0.0.0" and not is_loopback(name):
            raise socket.gaierror(socket.EAI_NONAME, f"the tests' Step Functions engine does not look for {name}")
        return resolve(host, *args, **kwargs)

    socket.socket.connect, socket.socket.bind, socket.getaddrinfo = guarded_connect, guarded_bind, guarded_resolve


def answer_as_aws_does():
    from localstack.aws.api import CommonServiceException
    from localstack.aws.api import stepfunctions as api
    from localstack.services.stepfunctions import provider
    from localstack.services.stepfunctions.asl.eval.callback import callback
    from localstack.services.stepfunctions.asl.eval.environment import Environment
    from localstack.services.stepfunctions.backend.execution import Execution

    close_frame = Environment.close_frame

    def close_task_too(self, frame):
        # A frame is one try of a state: with it ends the try's task.
        token = frame.states.context_object.context_object_data.get("Task", {}).get("Token")
        task = self.callback_pool_manager.get(token)
        if task is not None:
            task.report(callback.CallbackConsumerTimeout())
        return close_frame(self, frame)

    Environment.close_frame = close_task_too
    setup_heartbeat = callback.CallbackEndpoint.setup_heartbeat_endpoint

    def look_at_once(self, heartbeat_seconds):
        # A task that is completed before its state begins to wait would wait for its heartbeat timeout all the same.
        waiting = setup_heartbeat(self, heartbeat_seconds)
        if self.get_outcome() is not None:
            waiting.notify()
        return waiting

    callback.CallbackEndpoint.setup_heartbeat_endpoint = look_at_once
    # There is no EventBridge here to be told.
    Execution.publish_execution_status_change_event = lambda self: None

    def open_task(self, context, token):
        for execution in self._get_executions(context):
            task = execution.exec_worker and execution.exec_worker.env.callback_pool_manager.get(token)
            if task:
                # One that is stopped is told as running until its state's time is up.
                ended = execution.exec_status != api.ExecutionStatus.RUNNING or not execution.exec_worker.env.is_running()
                if ended or task.consumer_error is not None or task.get_outcome() is not None:
                    raise api.TaskTimedOut("Task Timed Out: 'Provided task does not exist anymore'")
                return task
        raise api.InvalidToken("Invalid Token: 'Invalid token'")

    def fits(field, value, limit):
        if value is not None and len(value.encode()) > limit:
            raise CommonServiceException(
                "ValidationException",
                f"1 validation error detected: Value at '{field}' failed to satisfy constraint: "
                f"Member must have length less than or equal to {limit}",
            )

    def send_task_success(self, context, task_token, output, **kwargs):
        fits("taskToken", task_token, 2048)
        fits("output", output, 262144)
        try:
            json.loads(output)
        except ValueError:
            raise api.InvalidOutput(f"Invalid Output: '{output[:50]}'") from None
        task = open_task(self, context, task_token)
        task.notify(callback.CallbackOutcomeSuccess(callback_id=task_token, output=output))
        return api.SendTaskSuccessOutput()

    def send_task_failure(self, context, task_token, error=None, cause=None, **kwargs):
        fits("taskToken", task_token, 2048)
        fits("error", error, 256)
        fits("cause", cause, 32768)
        task = open_task(self, context, task_token)
        task.notify(callback.CallbackOutcomeFailure(callback_id=task_token, error=error, cause=cause))
        return api.SendTaskFailureOutput()

    def send_task_heartbeat(self, context, task_token, **kwargs):
        open_task(self, context, task_token).notify_heartbeat()
        return api.SendTaskHeartbeatOutput()

    for method in (send_task_success, send_task_failure, send_task_heartbeat):
        setattr(provider.StepFunctionsProvider, method.__name__, method)


stay_on_this_machine()
answer_as_aws_does()

from localstack.runtime.main import main  # noqa: E402  it reads the variables above when it is imported

sys.exit(main())
