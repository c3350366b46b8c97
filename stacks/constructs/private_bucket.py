"""A bucket with the house's defaults: encrypted, TLS only, versioned, nothing public, old versions expire."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from stacks.waivers import waive

OLD_VERSION_DAYS = 30
INCOMPLETE_UPLOAD_DAYS = 7


class PrivateBucket(Construct):
    """`bucket`; objects are gone after `expire_days`; who came is written to the bucket `access_logs`.

    The one that `takes_access_logs` writes none of itself, and no rule asks it to.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        removal_policy: cdk.RemovalPolicy,
        expire_days: int | None = None,
        access_logs: s3.IBucket | None = None,
        takes_access_logs: bool = False,
    ) -> None:
        super().__init__(scope, construct_id)
        self.bucket = s3.Bucket(
            self,
            "Bucket",
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            versioned=True,
            server_access_logs_bucket=access_logs,
            server_access_logs_prefix=f"access/{construct_id.lower()}/" if access_logs else None,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            removal_policy=removal_policy,
            lifecycle_rules=[
                s3.LifecycleRule(
                    expiration=cdk.Duration.days(expire_days) if expire_days else None,
                    noncurrent_version_expiration=cdk.Duration.days(OLD_VERSION_DAYS),
                    abort_incomplete_multipart_upload_after=cdk.Duration.days(INCOMPLETE_UPLOAD_DAYS),
                )
            ],
        )
        if takes_access_logs:
            waive(self.bucket, "It takes the access logs: its own would each make another one", "CKV_AWS_18")
        if access_logs is None and not takes_access_logs:
            waive(
                self.bucket,
                "Only this environment's roles reach it; a hardened environment logs the others' access in this one",
                "AwsSolutions-S1",
                "NIST.800.53.R5-S3BucketLoggingEnabled",
            )
        waive(
            self.bucket,
            "One region by design: versions and retention keep objects, and S3 encrypts with keys of its own",
            "NIST.800.53.R5-S3BucketReplicationEnabled",
            "NIST.800.53.R5-S3DefaultEncryptionKMS",
        )


def allow_objects(role: iam.IRole, bucket: s3.IBucket, prefix: str = "") -> None:
    """Let a role read and write the objects under a prefix, by exactly these actions."""
    role.add_to_principal_policy(
        iam.PolicyStatement(
            actions=["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
            resources=[bucket.arn_for_objects(f"{prefix}*")],
        )
    )
    role.add_to_principal_policy(
        iam.PolicyStatement(actions=["s3:ListBucket", "s3:GetBucketLocation"], resources=[bucket.bucket_arn])
    )
