"""What holds data or passwords stays what it is from one version of this project to the next."""

import json

import pytest

from tests.stacks.assemblies import Values, resources, templates

WORD = {"ExcludePunctuation": True, "PasswordLength": 64}
STATEFUL = {
    "AWS::RDS::DBInstance": {"MetadataDb834921EB"},
    "AWS::EFS::FileSystem": {"ReleasesE6BA3EBF"},
    "AWS::S3::Bucket": {"LogsBucket5C52C3D2", "BundlesBucketB9647150", "DataBucketE6B0FAA8"},
    "AWS::ElastiCache::ReplicationGroup": {"BrokerValkey889C93EA"},
    "AWS::SageMaker::ModelPackageGroup": {"ModelPackages", "InsuranceModelPackages"},
    "AWS::EC2::VPC": {"Vpc8378EB38"},
}
pytestmark = pytest.mark.synth


def login(username: str) -> Values:
    return {
        "ExcludePunctuation": True,
        "GenerateStringKey": "password",
        "PasswordLength": 24,
        "SecretStringTemplate": f'{{"username": "{username}"}}',
    }


# Any change of one would generate the secrets of a living environment anew: nobody could log in, and what is
# encrypted in the database could not be read again.
GENERATED = {
    "AdminC75D2A91": login("admin"),
    "FlowerLogin5C2DCCA9": login("flower"),
    "TrackingLogin679E3CFB": login("admin"),
    "ApiSecret852BEBBB": WORD,
    "BrokerPasswordE1C7EB39": WORD,
    "FernetSecretAFEFCCC1": WORD,
    "JwtSecretB8834B39": WORD,
    "SessionKey0FE01E29": WORD | {"PasswordLength": 48},
    "VerifierSecret61D44AE6": WORD,
}
# In the environments that have it on, which are all that are shipped.
WAREHOUSE = "WarehouseConnectionE86A584F"
# What SQS makes superfluous.
NOT_IN_DEV = {"FlowerLogin5C2DCCA9", "BrokerPasswordE1C7EB39", "BrokerValkey889C93EA"}
DATABASE_OWNER = {
    "ExcludeCharacters": "/@\"' %:?#[]{}()\\|^&=+,;<>`~$*!",
    "GenerateStringKey": "password",
    "PasswordLength": 30,
    "SecretStringTemplate": '{"username":"airflow_owner"}',
}


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_stateful_resources_keep_their_logical_ids(environment: str) -> None:
    absent = NOT_IN_DEV if environment == "dev" else set()
    for resource_type, every in STATEFUL.items():
        wanted = every - absent
        assert {logical_id for logical_id, _ in resources(templates(environment), resource_type)} == wanted


def test_what_prod_keeps_goes_when_its_creation_is_rolled_back() -> None:
    bodies = [body for template in templates("prod").values() for body in template["Resources"].values()]
    assert not [body for body in bodies if body.get("DeletionPolicy") == "Retain"]
    kept = [body for body in bodies if body.get("DeletionPolicy") == "RetainExceptOnCreate"]
    assert {body["Type"] for body in kept} == {
        "AWS::EFS::FileSystem", "AWS::S3::Bucket", "AWS::SageMaker::ModelPackageGroup", "AWS::SecretsManager::Secret",
    }  # fmt: skip
    assert {body["UpdateReplacePolicy"] for body in kept} == {"Retain"}
    for resource_type in ("AWS::EFS::FileSystem", "AWS::S3::Bucket", "AWS::SageMaker::ModelPackageGroup"):
        assert all(body in kept for _, body in resources(templates("prod"), resource_type))


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_secrets_keep_their_logical_ids_and_generators(environment: str) -> None:
    found = {
        logical_id: secret["Properties"]["GenerateSecretString"]
        for logical_id, secret in resources(templates(environment), "AWS::SecretsManager::Secret")
    }
    [owner] = [key for key in found if "MetadataDbSecret" in key]
    # CDK puts a digest of the rules at the end of this id: with other rules it would be another secret.
    assert owner.endswith("39c2ccd07b4ac2f792d6cd34200bf889")
    assert found.pop(owner) == DATABASE_OWNER
    warehouse = dict(found.pop(WAREHOUSE))
    # The template names the database's address, which never changes while the database lives.
    assert '"login": "warehouse"' in json.dumps(warehouse.pop("SecretStringTemplate")).replace("\\", "")
    assert warehouse == {"ExcludePunctuation": True, "GenerateStringKey": "password", "PasswordLength": 32}
    absent = NOT_IN_DEV if environment == "dev" else set()
    assert found == {name: rules for name, rules in GENERATED.items() if name not in absent}
