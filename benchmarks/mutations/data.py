"""Mutations of what keeps data, of delivery, and of limits."""

from __future__ import annotations

import json

from benchmarks.mutations.draft import Draft, Template, environment, template

BUCKET = "AWS::S3::Bucket"


@template("public-bucket", "whoever sets a wrong policy publishes the data")
def _(draft: Draft) -> None:
    del draft.properties(BUCKET, "DataBucket")["PublicAccessBlockConfiguration"]


@template("bucket-policy-for-everybody", "the data is public")
def _(draft: Draft) -> None:
    draft.properties("AWS::S3::BucketPolicy", "DataBucket")["PolicyDocument"]["Statement"].append(
        {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::data/*"}
    )


@template("bucket-without-tls", "objects travel in the clear")
def _(draft: Draft) -> None:
    draft.remove("AWS::S3::BucketPolicy", "BundlesBucket")


@template("database-without-tls", "queries and passwords travel in the clear")
def _(draft: Draft) -> None:
    draft.properties("AWS::RDS::DBParameterGroup")["Parameters"] = {"rds.force_ssl": "0"}


@template("database-unencrypted", "snapshots can be read by who gets them")
def _(draft: Draft) -> None:
    draft.properties("AWS::RDS::DBInstance")["StorageEncrypted"] = False


@template("database-public", "the database has a public address")
def _(draft: Draft) -> None:
    draft.properties("AWS::RDS::DBInstance")["PubliclyAccessible"] = True


@template("database-password-in-clear", "the password stands in the template")
def _(draft: Draft) -> None:
    draft.properties("AWS::RDS::DBInstance")["MasterUserPassword"] = "correct horse battery staple"


@template("database-of-a-minor-version", "a first deployment fails once AWS has withdrawn that version")
def _(draft: Draft) -> None:
    draft.properties("AWS::RDS::DBInstance")["EngineVersion"] = "17.6"


@template("prod-database-goes-with-its-stack", "a destroy takes the history of every run", base="prod")
def _(draft: Draft) -> None:
    draft.body("AWS::RDS::DBInstance")["DeletionPolicy"] = "Delete"
    draft.properties("AWS::RDS::DBInstance")["DeletionProtection"] = False


@template("kept-by-a-failed-creation", "the next deployment finds its secret's name taken", base="prod")
def _(draft: Draft) -> None:
    draft.body("AWS::SecretsManager::Secret", "WarehouseConnection")["DeletionPolicy"] = "Retain"


@template("alarm-topic-without-cloudwatch", "CloudWatch may not publish: the alarm rings and nobody hears it")
def _(draft: Draft) -> None:
    document = draft.properties("AWS::SNS::TopicPolicy", "Reaper")["PolicyDocument"]
    document["Statement"] = [
        statement for statement in document["Statement"] if statement["Effect"] == "Deny"
    ]


@template("broker-without-tls", "ElastiCache takes a password only with TLS")
def _(draft: Draft) -> None:
    draft.properties("AWS::ElastiCache::ReplicationGroup")["TransitEncryptionEnabled"] = False


@template("releases-writable-by-tasks", "a DAG rewrites the code of other DAGs")
def _(draft: Draft) -> None:
    statement = draft.statement("TaskRoleDefault", "elasticfilesystem:ClientMount")
    statement["Action"] = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]


@template("releases-mounted-in-clear", "IAM log-in to EFS needs TLS: the task doesn't start")
def _(draft: Draft) -> None:
    volume = draft.properties("AWS::ECS::TaskDefinition", "SchedulerTask")["Volumes"][0]
    volume["EFSVolumeConfiguration"]["TransitEncryption"] = "DISABLED"


@template("secret-in-the-template", "the signing key stands in the template")
def _(draft: Draft) -> None:
    secret = draft.properties("AWS::SecretsManager::Secret", "JwtSecret")
    del secret["GenerateSecretString"]
    secret["SecretString"] = "0123456789abcdef"


@template("secret-rotates-under-ecs", "after the first rotation no running task can log in")
def _(draft: Draft) -> None:
    draft.add(
        "storage",
        "Rotation",
        "AWS::SecretsManager::RotationSchedule",
        {
            "SecretId": {"Ref": "MetadataDbSecretAttachmentFC4323B9"},
            "RotationRules": {"AutomaticallyAfterDays": 30},
        },
    )


@template("logs-for-ever", "logs are kept and billed for ever")
def _(draft: Draft) -> None:
    del draft.properties("AWS::Logs::LogGroup", "SchedulerTask")["RetentionInDays"]


@template("log-key-without-grant", "CreateLogGroup: CloudWatch Logs may not use the key")
def _(draft: Draft) -> None:
    root = {"AWS": "arn:aws:iam::123456789012:root"}
    statement = {"Effect": "Allow", "Principal": root, "Action": "kms:*", "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    draft.add("airflow", "Key", "AWS::KMS::Key", {"EnableKeyRotation": True, "KeyPolicy": policy})
    draft.properties("AWS::Logs::LogGroup", "SchedulerTask")["KmsKeyId"] = {"Fn::GetAtt": ["Key", "Arn"]}


@template("redelivery", "SQS hands a running task out again after 30 s", base="sqs")
def _(draft: Draft) -> None:
    draft.properties("AWS::SQS::Queue", "Queuedefault")["VisibilityTimeout"] = 30


@template("visibility-beyond-sqs", "SQS ends at 12 hours: InvalidParameterValue", base="sqs")
def _(draft: Draft) -> None:
    draft.properties("AWS::SQS::Queue", "Queuedefault")["VisibilityTimeout"] = 86_400


@template("queue-without-dead-letters", "a message that kills its worker comes back for ever", base="sqs")
def _(draft: Draft) -> None:
    del draft.properties("AWS::SQS::Queue", "Queuedefault")["RedrivePolicy"]


@environment("flower-on-sqs", "Flower sees nothing on SQS and logs an error every second", base="sqs")
def _(values: Template) -> None:
    values["services"]["flower"] = {"cpu": 256, "memory_mib": 512}


@environment("training-beyond-sagemaker", "SageMaker ends a job after five days: ValidationException")
def _(values: Template) -> None:
    values["workflows"] = {"max_runtime_seconds": 6 * 86_400}


@template("notebook-that-never-stops", "a notebook bills from the moment it is made, day and night")
def _(draft: Draft) -> None:
    draft.add(
        "workflows",
        "Notebook",
        "AWS::SageMaker::NotebookInstance",
        {"InstanceType": "ml.t3.medium", "RoleArn": {"Fn::GetAtt": ["JobRole014917C6", "Arn"]}},
    )


@template("bastion-without-tag", "CodeDeploy finds no instance: every push fails")
def _(draft: Draft) -> None:
    instance = draft.properties("AWS::EC2::Instance", "Bastion")
    instance["Tags"] = [tag for tag in instance["Tags"] if tag["Key"] != "updraft:codedeploy"]


@template(
    "bastion-id-in-another-stack",
    "a new AMI replaces the bastion: an export in use can't change, no deployment",
)
def _(draft: Draft) -> None:
    sleeper = draft.properties("AWS::Lambda::Function", "SleepSleeper")
    sleeper["Environment"]["Variables"]["BASTION"] = draft.import_from_network(
        "AWS::EC2::Instance", "Bastion"
    )


@template("bastion-may-not-write", "the hooks can't write a release to EFS")
def _(draft: Draft) -> None:
    statement = draft.statement("BastionPolicy", "elasticfilesystem:ClientWrite")
    statement["Action"] = ["elasticfilesystem:ClientMount"]


@template("pointer-elsewhere", "what a push makes live is never served")
def _(draft: Draft) -> None:
    statement = draft.statement("BastionPolicy", "ssm:PutParameter")
    statement["Resource"] = json.loads(
        json.dumps(statement["Resource"]).replace("bundle/pointer", "bundle/live")
    )


@template("settings-too-long", "a standard parameter holds 4 KiB: ValidationException")
def _(draft: Draft) -> None:
    draft.properties("AWS::SSM::Parameter", "Settings")["Value"] = "x" * 5000


@template("too-many-rules", "a security group holds 60 rules each way")
def _(draft: Draft) -> None:
    group = draft.properties("AWS::EC2::SecurityGroup", "SecurityGroupsAirflow1")
    group["SecurityGroupEgress"] = [
        {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "CidrIp": f"10.1.{number}.0/24"}
        for number in range(70)
    ]
