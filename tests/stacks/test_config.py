"""An environment file is refused with one line for each mistake."""

import tomllib
from pathlib import Path

import pytest

from runtime.settings import DIGEST_CHARACTERS, LONGEST_NAME
from stacks.config import (
    ENVIRONMENTS,
    PREFIX_CHARACTERS,
    ConfigError,
    EnvironmentConfig,
    load_environment,
    parse_environment,
)


def write(directory: Path, text: str) -> Path:
    (directory / "mine.toml").write_text(text)
    return directory


def dev_with(directory: Path, old: str, new: str) -> Path:
    text = (ENVIRONMENTS / "dev.toml").read_text()
    assert old in text
    return write(directory, text.replace(old, new))


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_shipped_environment_is_accepted(name: str) -> None:
    config = load_environment(name)
    assert config.prefix == f"updraft-{name}"
    assert len(config.zones) == config.network.availability_zones


def test_local_environment_is_accepted_once_its_authority_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_file", lambda self: self.suffix in (".toml", ".pem"))
    assert load_environment("local").workers["default"].min == 1


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("concurrency = 8", "concurrency = 8, speed = 1", "workers.default.speed: unknown key"),
        ("concurrency = 8", "concurrency = 'many'", "workers.default.concurrency: input should be a valid integer, came 'many'"),
        ("max = 5", "max = 0", "workers.default.max: input should be greater than or equal to 1, came 0"),
        ("min = 0, max = 5", "min = 9, max = 5", "workers.default.min: 9 is above max 5"),
        ("default = { cpu = 1024", "default = { cpu = 300", "workers.default.cpu: 300 is not a Fargate size"),
        ("default = { cpu = 1024, memory_mib = 4096", "default = { cpu = 1024, memory_mib = 512", "memory_mib: 512 does not go with cpu 1024"),
        ('nat = "instance"', 'nat = "maybe"', "network.nat: input should be 'gateway'"),
        ("log_retention_days = 14", "log_retention_days = 13", "log_retention_days: 13 is not one of"),
        ("[services]\n", "[services]\nflower = { cpu = 256, memory_mib = 512 }\n", "services.flower: Flower sees nothing on SQS"),
        ("[workers]\ndefault", "[workers]\nother", "workers: no queue 'default', came: other"),
        ('region = "us-east-1"', 'region = "mars"', "region: string should match pattern"),
        ("rds-global-bundle.pem", "gone.pem", "database.ca_bundle: docker/certificates/gone.pem does not exist"),
        ("[tracking]\nenabled = true", "[tracking]\nenabled = 1", "tracking.enabled: input should be a valid boolean, came 1"),
        ("[tracking]\n", '[tracking]\nopenlineage_url = "http://marquez.example/api/v1/lineage"\n', "tracking.openlineage_url: http://marquez.example/api/v1/lineage can't be reached; it has to be https://"),
        ("[tracking]\n", '[tracking]\nopenlineage_url = "https://marquez.example:5000"\n', "tracking.openlineage_url: https://marquez.example:5000 can't be reached"),
        ("[tracking]\n", '[tracking]\nopenlineage_url = "https://me:secret@marquez.example"\n', "tracking.openlineage_url: string should match pattern"),
        ("[tracking]", '[pets]\nplatform = "eks"\n[tracking]', "pets.eks_cluster: missing"),
        ("[tracking]", '[pets]\neks_cluster = "a"\n[tracking]', 'pets.eks_cluster, eks_namespace: only go with platform "eks"'),
        ("[tracking]", '[pets]\nplatform = "mesos"\n[tracking]', "pets.platform: input should be 'none', 'ecs' or 'eks'"),
        ('nat = "instance"', 'nat = "instance"\ncidr = "10.0.0.0/8"', "network.cidr: 10.0.0.0/8 has /8"),
        ('nat = "instance"', 'nat = "instance"\navailability_zone_names = ["us-east-1a"]', "network.availability_zone_names: 1 came, and availability_zones is 2; name as many"),
        ('nat = "instance"', 'nat = "instance"\navailability_zone_names = ["us-east-1a", "us-east-1a"]', "network.availability_zone_names: us-east-1a, us-east-1a has one twice"),
        ('nat = "instance"', 'nat = "instance"\navailability_zone_names = ["us-east-1a", "us-east-2b"]', "network.availability_zone_names: us-east-2b is no zone of us-east-1; see those of your account: aws ec2 describe-availability-zones --region us-east-1"),
        ('nat = "instance"', 'nat = "instance"\navailability_zone_names = ["us-east-1a", "us-east-1-bos-1a"]', "us-east-1-bos-1a is no zone of us-east-1"),
        ("[tracking]", "[spark]\nengine = 'hadoop'\n[tracking]", "spark.engine: input should be 'none', 'ecs'"),
        ("[tracking]", "[spark]\nengine = 'databricks'\n[tracking]", "spark.databricks: missing; engine \"databricks\" needs"),
        ("[tracking]", "[spark]\nsize = { cpu = 1024, memory_mib = 4096 }\n[tracking]", "spark.size: only goes with engine \"ecs\", and the engine is \"none\""),
    ],
)  # fmt: skip
def test_mistake_is_told_in_one_line(tmp_path: Path, old: str, new: str, line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_environment("mine", dev_with(tmp_path, old, new))
    assert line in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert str(refused.value).startswith("environments/mine.toml: ")


def test_prefix_leaves_room_for_a_tuning_jobs_digest() -> None:
    assert LONGEST_NAME["tuning"] - DIGEST_CHARACTERS - len("-") == PREFIX_CHARACTERS
    values = tomllib.loads((ENVIRONMENTS / "dev.toml").read_text()) | {"project": "fifteen-letters"}
    assert len(parse_environment("integ", values).prefix) == PREFIX_CHARACTERS
    with pytest.raises(ConfigError, match="has 22 characters; names on SageMaker have room for 21"):
        parse_environment("integr", values)


def test_zones_are_those_that_the_file_names(tmp_path: Path) -> None:
    named = 'nat = "instance"\navailability_zone_names = ["us-east-1d", "us-east-1f"]'
    config = load_environment("mine", dev_with(tmp_path, 'nat = "instance"', named))
    assert config.zones == ["us-east-1d", "us-east-1f"]


def test_zones_of_an_existing_network_are_named_there(tmp_path: Path) -> None:
    existing = """availability_zone_names = ["us-east-1a", "us-east-1b"]
[network.existing]
vpc_id = "vpc-0123456789abcdef0"
availability_zones = ["us-east-1a", "us-east-1b"]
private_subnet_ids = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
isolated_subnet_ids = ["subnet-0123456789abcdef2", "subnet-0123456789abcdef3"]
"""
    with pytest.raises(ConfigError, match="availability_zone_names: belongs to a new VPC; remove it"):
        load_environment("mine", dev_with(tmp_path, 'nat = "instance"', existing))


@pytest.mark.parametrize(
    ("region", "letters"), [("eu-central-1", "abc"), ("ap-northeast-1", "acd"), ("ca-central-1", "abd")]
)
def test_zones_are_those_that_new_accounts_have(region: str, letters: str, tmp_path: Path) -> None:
    text = (ENVIRONMENTS / "prod.toml").read_text().replace("us-east-1", region)
    zones = load_environment("mine", write(tmp_path, text)).zones
    assert zones == [region + letter for letter in letters]


def test_many_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = (ENVIRONMENTS / "dev.toml").read_text()
    broken = text.replace("concurrency = 8", "concurrency = 0").replace(
        'nat = "instance"', 'nat = "x"\nmtu = 9000'
    )
    with pytest.raises(ConfigError) as refused:
        load_environment("mine", write(tmp_path, broken))
    assert len(str(refused.value).splitlines()) == 3


def test_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not TOML"):
        load_environment("mine", write(tmp_path, "region = = 1"))


def test_unknown_environment_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"there are .*dev.*local.*prod"):
        load_environment("nowhere")


def test_environment_files_hold_every_required_section() -> None:
    for file in ENVIRONMENTS.glob("*.toml"):
        values = tomllib.loads(file.read_text())
        required = {name for name, field in EnvironmentConfig.model_fields.items() if field.is_required()}
        assert required - {"environment"} <= set(values)


def test_engine_that_cannot_reach_the_emulated_account_is_refused_there(tmp_path: Path) -> None:
    spark = '[spark]\nengine = "emr-serverless"\n'
    directory = dev_with(tmp_path, 'region = "us-east-1"', 'region = "us-east-1"\naccount = "000000000000"')
    (directory / "mine.toml").write_text((directory / "mine.toml").read_text() + spark)
    with pytest.raises(
        ConfigError, match=r"spark\.engine: \"emr-serverless\" can't reach the emulated account"
    ):
        load_environment("mine", directory)
