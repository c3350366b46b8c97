"""Mutations of who may do what, and of who reaches whom."""

from __future__ import annotations

from benchmarks.mutations.draft import Draft, template

ANYWHERE = "0.0.0.0/0"
INGRESS = "AWS::EC2::SecurityGroupIngress"
SCHEDULER_EXECUTION = "SchedulerTaskDefinitionExecutionRole"


@template("role-whole-service", "a DAG may delete every bucket of the account")
def _(draft: Draft) -> None:
    draft.statement("TaskRoleDefault", "s3:GetObject")["Action"] = "s3:*"


@template("role-everything", "a DAG owns the account")
def _(draft: Draft) -> None:
    draft.statements("TaskRoleDefault").append({"Effect": "Allow", "Action": "*", "Resource": "*"})


@template("role-administrator", "a DAG owns the account")
def _(draft: Draft) -> None:
    role = draft.properties("AWS::IAM::Role", "TaskRole30")
    role["ManagedPolicyArns"] = ["arn:aws:iam::aws:policy/AdministratorAccess"]


@template("jobs-of-everybody", "a DAG stops other teams' trainings")
def _(draft: Draft) -> None:
    draft.statement("TaskPolicy", "sagemaker:StopTrainingJob")["Resource"] = "*"


@template("secrets-of-everybody", "a task that starts can read every secret of the account")
def _(draft: Draft) -> None:
    draft.statement(SCHEDULER_EXECUTION, "secretsmanager:GetSecretValue")["Resource"] = "*"


@template("passrole-any", "whoever starts workers can start them as administrator")
def _(draft: Draft) -> None:
    draft.statement("LoadMetricRole", "iam:PassRole")["Resource"] = "*"


@template("passrole-to-any-service", "the passed role can be given to any service")
def _(draft: Draft) -> None:
    del draft.statement("LoadMetricRole", "iam:PassRole")["Condition"]


@template("passrole-without-execution-role", "RunTask: AccessDenied, no worker ever starts")
def _(draft: Draft) -> None:
    statement = draft.statement("LoadMetricRole", "iam:PassRole")
    statement["Resource"] = statement["Resource"][:1]


@template("passrole-of-jobs-missing", "CreateTrainingJob: AccessDenied on iam:PassRole")
def _(draft: Draft) -> None:
    draft.statements("TaskPolicy").remove(draft.statement("TaskPolicy", "iam:PassRole"))


@template("role-trusts-everybody", "anybody's account may assume the role")
def _(draft: Draft) -> None:
    role = draft.properties("AWS::IAM::Role", "TaskRole30")
    role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] = {"AWS": "*"}


@template("role-trusts-wrong-service", "ECS can't assume the role: no task starts")
def _(draft: Draft) -> None:
    role = draft.properties("AWS::IAM::Role", "ControlRole")
    role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] = {"Service": "ec2.amazonaws.com"}


@template("database-log-in-by-name", "IAM log-in is refused: the policy takes the resource id, not the name")
def _(draft: Draft) -> None:
    draft.statement("LoadMetricRole", "rds-db:connect")["Resource"] = (
        "arn:aws:rds-db:us-east-1:123456789012:dbuser:updraft-dev-metadata/load_metric"
    )


@template("secret-grant-missing", "ResourceInitializationError: the task never starts")
def _(draft: Draft) -> None:
    statement = draft.statement(SCHEDULER_EXECUTION, "secretsmanager:GetSecretValue")
    statement["Resource"] = statement["Resource"][1:]


@template("log-grant-missing", "the task dies before its container starts: it can't create its log stream")
def _(draft: Draft) -> None:
    statements = draft.statements(SCHEDULER_EXECUTION)
    statements.remove(draft.statement(SCHEDULER_EXECUTION, "logs:PutLogEvents"))


@template("pull-grant-missing", "CannotPullContainerError")
def _(draft: Draft) -> None:
    statements = draft.statements(SCHEDULER_EXECUTION)
    statements.remove(draft.statement(SCHEDULER_EXECUTION, "ecr:BatchGetImage"))


@template("lambda-log-grant-missing", "the function runs and leaves no log")
def _(draft: Draft) -> None:
    statements = draft.statements("LoadMetricRole")
    statements.remove(draft.statement("LoadMetricRole", "logs:PutLogEvents"))


@template("lambda-network-grant-missing", "the function can't be made in the VPC")
def _(draft: Draft) -> None:
    statements = draft.statements("LoadMetricRole")
    statements.remove(draft.statement("LoadMetricRole", "ec2:CreateNetworkInterface"))


@template(
    "job-network-grant-missing", "CreateTrainingJob in the VPC: the role may not make network interfaces"
)
def _(draft: Draft) -> None:
    draft.remove("AWS::IAM::ManagedPolicy", "JobNetworkPolicy")


@template("job-log-grant-missing", "a training fails and leaves no word why")
def _(draft: Draft) -> None:
    statements = draft.statements("JobRoleDefaultPolicy")
    statements.remove(draft.statement("JobRoleDefaultPolicy", "logs:PutLogEvents"))


@template("list-granted-on-a-name", "ListTrainingJobs: AccessDenied, since it takes no resource")
def _(draft: Draft) -> None:
    statement = draft.statement("TaskPolicy", "sagemaker:ListTrainingJobs")
    statement["Resource"] = "arn:aws:sagemaker:us-east-1:123456789012:training-job/updraft-*"


@template(
    "objects-granted-on-their-bucket", "GetObject: AccessDenied, since the grant is on the bucket itself"
)
def _(draft: Draft) -> None:
    statement = draft.statement("JobRoleDefaultPolicy", "s3:GetObject")
    statement["Resource"] = draft.statement("JobRoleDefaultPolicy", "s3:ListBucket")["Resource"]


@template(
    "stop-granted-on-another-kind", "StopTrainingJob: AccessDenied, a killed task leaves its GPU running"
)
def _(draft: Draft) -> None:
    statement = draft.statement("TaskPolicy", "sagemaker:StopTrainingJob")
    statement["Resource"] = "arn:aws:sagemaker:us-east-1:123456789012:processing-job/updraft-*"


@template("operation-taken-for-an-action", "HeadObject needs s3:GetObject: there is no action of its name")
def _(draft: Draft) -> None:
    draft.statements("JobRoleDefaultPolicy").append(
        {"Effect": "Allow", "Action": "s3:HeadObject", "Resource": "arn:aws:s3:::updraft-data/*"}
    )


@template("open-port", "the UI is on the internet")
def _(draft: Draft) -> None:
    draft.add(
        "network",
        "Open",
        INGRESS,
        {
            "IpProtocol": "tcp",
            "FromPort": 8080,
            "ToPort": 8080,
            "CidrIp": ANYWHERE,
            "GroupId": {"Fn::GetAtt": ["SecurityGroupsWebserverF9ABE46D", "GroupId"]},
        },
    )


@template("open-port-ipv6", "the database is on the internet, by IPv6")
def _(draft: Draft) -> None:
    group = draft.properties("AWS::EC2::SecurityGroup", "SecurityGroupsDatabase")
    group["SecurityGroupIngress"] = [
        {"IpProtocol": "tcp", "FromPort": 5432, "ToPort": 5432, "CidrIpv6": "::/0"}
    ]


@template("open-ssh", "SSH is on the internet")
def _(draft: Draft) -> None:
    group = draft.properties("AWS::EC2::SecurityGroup", "SecurityGroupsBastion")
    group["SecurityGroupIngress"] = [
        {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": "203.0.113.0/24"}
    ]


@template("no-way-to-the-database", "every service times out at its first query")
def _(draft: Draft) -> None:
    draft.remove(INGRESS, r"SecurityGroupsDatabasefrom\w+SecurityGroupsAirflow")


@template("no-way-to-the-releases", "tasks stay PENDING: mounting EFS times out")
def _(draft: Draft) -> None:
    draft.remove(INGRESS, r"SecurityGroupsReleasesfrom\w+SecurityGroupsAirflow")


@template("no-way-to-aws", "no image, no secret, no log: security group without egress to 443")
def _(draft: Draft) -> None:
    group = draft.properties("AWS::EC2::SecurityGroup", "SecurityGroupsAirflow1")
    group["SecurityGroupEgress"] = []


@template("nat-instance-lets-nobody-pass", "the reaper's calls time out: jobs without an owner run on")
def _(draft: Draft) -> None:
    draft.remove(INGRESS, r"SecurityGroupsBastionfrom\w+SecurityGroupsReaper")


@template("no-nat-route", "tasks in private subnets can't pull their image")
def _(draft: Draft) -> None:
    draft.remove("AWS::EC2::Route", "VpcprivateSubnet1")


@template("lambda-in-public-subnet", "a Lambda has no public address: every call of AWS's APIs times out")
def _(draft: Draft) -> None:
    function = draft.properties("AWS::Lambda::Function", "LoadMetric")
    function["VpcConfig"]["SubnetIds"] = [draft.import_public_subnet()]


@template("service-in-public-subnet", "a task without a public address can't pull its image")
def _(draft: Draft) -> None:
    network = draft.properties("AWS::ECS::Service", "SchedulerService")["NetworkConfiguration"]
    network["AwsvpcConfiguration"]["Subnets"] = [draft.import_public_subnet()]
