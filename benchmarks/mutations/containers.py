"""Mutations of what ECS and Lambda run."""

from __future__ import annotations

from benchmarks.mutations.draft import Draft, Template, environment, template

SERVICE = "AWS::ECS::Service"
DEFINITION = "AWS::ECS::TaskDefinition"


@template("stop-timeout", "Fargate refuses a stop timeout above 120 s: ClientException")
def _(draft: Draft) -> None:
    draft.container("Workerdefault")["StopTimeout"] = 600


@template("fargate-memory", "Fargate has no 0.5 vCPU with 8 GiB: ClientException")
def _(draft: Draft) -> None:
    draft.properties(DEFINITION, "SchedulerTask").update(Cpu="512", Memory="8192")


@environment("fargate-cpu", "Fargate has no 0.3 vCPU")
def _(values: Template) -> None:
    values["workers"]["default"]["cpu"] = 300


@template("bridge-network", "Fargate takes awsvpc alone")
def _(draft: Draft) -> None:
    draft.properties(DEFINITION, "SchedulerTask")["NetworkMode"] = "bridge"


@template("shared-memory", "Fargate refuses sharedMemorySize")
def _(draft: Draft) -> None:
    draft.container("Workerdefault")["LinuxParameters"] = {"SharedMemorySize": 512}


@template("privileged", "Fargate refuses privileged containers")
def _(draft: Draft) -> None:
    draft.container("Workerdefault")["Privileged"] = True


@template("exec-on-read-only-root", "`exec` fails: the SSM agent can't write its folders")
def _(draft: Draft) -> None:
    draft.container("WebserverTask")["ReadonlyRootFilesystem"] = True
    draft.properties(SERVICE, "WebserverService")["EnableExecuteCommand"] = True


@template("small-scratch-space", "Fargate's ephemeral storage begins at 21 GiB")
def _(draft: Draft) -> None:
    draft.properties(DEFINITION, "Workerdefault")["EphemeralStorage"] = {"SizeInGiB": 10}


@template("health-check-too-slow", "ECS refuses a health check time-out above 60 s")
def _(draft: Draft) -> None:
    draft.container("SchedulerTask")["HealthCheck"]["Timeout"] = 90


@template("no-start-period", "at half a vCPU the webserver is killed before it answers, for ever")
def _(draft: Draft) -> None:
    draft.container("WebserverTask")["HealthCheck"] |= {"StartPeriod": 0, "Retries": 2, "Interval": 10}


@template("health-check-by-curl", "the image has no curl: every check fails")
def _(draft: Draft) -> None:
    draft.container("WebserverTask")["HealthCheck"]["Command"] = [
        "CMD-SHELL",
        "curl -f http://localhost:8080/api/v2/monitor/health",
    ]


@template("plain-password", "the password stands in the template and in the console")
def _(draft: Draft) -> None:
    draft.container("SchedulerTask")["Environment"].append(
        {"Name": "UPDRAFT_DATABASE_PASSWORD", "Value": "correct horse battery staple"}
    )


@template("password-in-a-url", "the password stands in the template and in the console")
def _(draft: Draft) -> None:
    draft.container("SchedulerTask")["Environment"].append(
        {"Name": "AIRFLOW__CELERY__BROKER_URL", "Value": "rediss://:hunter2hunter2@broker:6379/0"}
    )


@template("secret-key-that-is-not-there", "ResourceInitializationError: the secret has no such key")
def _(draft: Draft) -> None:
    for secret in draft.container("SchedulerTask")["Secrets"]:
        if secret["Name"] == "UPDRAFT_DATABASE_USER":
            secret["ValueFrom"]["Fn::Join"][1][1] = ":user::"


@template("worker-as-a-service", "scale-in kills busy workers; protected ones block deployments for hours")
def _(draft: Draft) -> None:
    service = dict(draft.properties(SERVICE, "SchedulerService"))
    service |= {"TaskDefinition": {"Ref": "WorkerdefaultDefinition71A22EA5"}, "ServiceName": "worker"}
    draft.add("airflow", "WorkerService", SERVICE, service)


@template("scaled-service", "Application Auto Scaling chooses which task dies")
def _(draft: Draft) -> None:
    draft.add(
        "airflow",
        "Scaled",
        "AWS::ApplicationAutoScaling::ScalableTarget",
        {
            "MinCapacity": 1,
            "MaxCapacity": 5,
            "ResourceId": "service/updraft-dev/triggerer",
            "ScalableDimension": "ecs:service:DesiredCount",
            "ServiceNamespace": "ecs",
        },
    )


@template("task-protection", "more protected tasks than the desired count: DEPLOYMENT_BLOCKED")
def _(draft: Draft) -> None:
    draft.statements("TaskRoleDefault").append(
        {
            "Effect": "Allow",
            "Action": "ecs:UpdateTaskProtection",
            "Resource": "arn:aws:ecs:us-east-1:123456789012:task/updraft-dev/*",
        }
    )


@template("deployment-without-room", "no new task may start and no old one stop: the deployment hangs")
def _(draft: Draft) -> None:
    draft.properties(SERVICE, "SchedulerService")["DeploymentConfiguration"] |= {
        "MinimumHealthyPercent": 100,
        "MaximumPercent": 100,
    }


@template("no-circuit-breaker", "a broken image keeps the stack waiting for three hours")
def _(draft: Draft) -> None:
    del draft.properties(SERVICE, "SchedulerService")["DeploymentConfiguration"]["DeploymentCircuitBreaker"]


@template("slow-names", "a moved webserver is looked for at its old address for five minutes")
def _(draft: Draft) -> None:
    records = draft.properties("AWS::ServiceDiscovery::Service", "Webserver")["DnsConfig"]["DnsRecords"]
    records[0]["TTL"] = 300


@template("service-connect", "workers are no service: with Service Connect they don't find the webserver")
def _(draft: Draft) -> None:
    draft.properties(SERVICE, "WebserverService")["ServiceConnectConfiguration"] = {
        "Enabled": True,
        "Namespace": "updraft-dev.internal",
    }


@template("service-before-migration", "the new scheduler meets the old schema")
def _(draft: Draft) -> None:
    draft.body(SERVICE, "SchedulerService")["DependsOn"] = []


@template("image-of-the-other-architecture", "exec format error")
def _(draft: Draft) -> None:
    draft.properties(DEFINITION, "SchedulerTask")["RuntimePlatform"]["CpuArchitecture"] = "X86_64"


@template("log-group-that-is-not-there", "the task dies before its container starts")
def _(draft: Draft) -> None:
    draft.container("SchedulerTask")["LogConfiguration"]["Options"]["awslogs-group"] = "/updraft/gone"


@template("long-function", "Lambda ends at 900 s")
def _(draft: Draft) -> None:
    draft.properties("AWS::Lambda::Function", "LoadMetric")["Timeout"] = 1200


@template("reserved-concurrency", "a new account has 10 in all: the reservation is refused")
def _(draft: Draft) -> None:
    draft.properties("AWS::Lambda::Function", "LoadMetric")["ReservedConcurrentExecutions"] = 1


@template("old-runtime", "Lambda makes no more functions of this runtime")
def _(draft: Draft) -> None:
    draft.properties("AWS::Lambda::Function", "LoadMetric")["Runtime"] = "python3.8"


@template("event-retries", "a late sample is tried again for a day, beside the fresh ones")
def _(draft: Draft) -> None:
    del draft.properties("AWS::Events::Rule", "EveryMinute")["Targets"][0]["RetryPolicy"]


@environment("too-many-connections", "the database refuses connections once the fleet has grown")
def _(values: Template) -> None:
    values["workers"]["default"] |= {"max": 40, "concurrency": 16}
