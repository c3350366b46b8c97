"""What the account has before the provider's operators are run on it; both sides of the tests name it so."""

REGION = "us-east-1"
ACCOUNT = "000000000000"
BUCKET = "provider-tests"
ROLE_NAME = "provider-tests-jobs"
ROLE_ARN = f"arn:aws:iam::{ACCOUNT}:role/{ROLE_NAME}"
REGISTRY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
# The programs of these images lie in `images/`.
NEIGHBOURS_IMAGE = f"{REGISTRY}/provider-tests/neighbours:1"
SPLIT_IMAGE = f"{REGISTRY}/provider-tests/split:1"
