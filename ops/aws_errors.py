"""What AWS's SDK raises, told to the user: its own words, and what to do about credentials that aren't taken."""

from __future__ import annotations

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    LoginError,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

ERRORS = (BotoCoreError, ClientError, Boto3Error)
NO_CREDENTIALS = (
    CredentialRetrievalError, LoginError, NoAuthTokenError, NoCredentialsError, PartialCredentialsError,
    ProfileNotFound, SSOError, TokenRetrievalError,
)  # fmt: skip
# Each service has its own name for keys that are unknown or have run out.
REFUSED_CREDENTIALS = frozenset({
    "AuthFailure", "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidClientTokenId",
    "RequestExpired", "SignatureDoesNotMatch", "UnrecognizedClientException",
})  # fmt: skip


def in_words(error: BaseException) -> str:
    """What the error says; with what to do when AWS doesn't take the credentials, or there are none."""
    # A failed transfer of S3 holds what AWS answered only as a text.
    cause = error.__context__ if isinstance(error, Boto3Error) else error
    refused = isinstance(cause, ClientError) and cause.response["Error"]["Code"] in REFUSED_CREDENTIALS
    if not refused and not isinstance(cause, NO_CREDENTIALS):
        return str(error)
    return (
        f"{str(error).rstrip('.')}. Log in to AWS again (aws sso login, or fresh keys; AWS_PROFILE names the profile) "
        "and repeat the command; aws sts get-caller-identity says who you are"
    )
