"""The bastion: reached by Session Manager, target of CodeDeploy, the one place that writes releases to EFS."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.config import EnvironmentConfig
from stacks.waivers import policy_of, waive

CODEDEPLOY_TAG = "updraft:codedeploy"
# https://docs.aws.amazon.com/systems-manager/latest/userguide/getting-started-create-iam-instance-profile.html
SESSION_MANAGER = [
    "ssm:UpdateInstanceInformation",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
]

# The file system is made after the bastion, so its id is looked up at boot: it would flow backwards otherwise.
USER_DATA = """\
dnf install -y amazon-efs-utils ruby wget python3-boto3
install -d -m 0755 /etc/updraft {releases}
cat >/etc/updraft/environment <<'ENVIRONMENT'
UPDRAFT_SSM_PREFIX={ssm_prefix}
UPDRAFT_RELEASES_DIRECTORY={releases}
UPDRAFT_VERIFIER_URL=http://{verifier}.{namespace}:8790
AWS_REGION={region}
ENVIRONMENT
cat >/usr/local/sbin/updraft-mount <<'MOUNT'
#!/bin/bash
until mountpoint -q {releases}; do
  id=$(aws ssm get-parameter --region {region} --name {ssm_prefix}/releases/file-system-id --query Parameter.Value --output text) \\
    && mount -t efs -o tls,iam "$id":/ {releases} || sleep 15
done
MOUNT
chmod 0755 /usr/local/sbin/updraft-mount
cat >/etc/systemd/system/updraft-mount.service <<'UNIT'
[Unit]
After=network-online.target
Wants=network-online.target
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/updraft-mount
[Install]
WantedBy=multi-user.target
UNIT
wget -q https://aws-codedeploy-{region}.s3.{region}.amazonaws.com/latest/install -O /tmp/codedeploy-install
chmod +x /tmp/codedeploy-install && /tmp/codedeploy-install auto
install -d /etc/systemd/system/codedeploy-agent.service.d
cat >/etc/systemd/system/codedeploy-agent.service.d/updraft.conf <<'UNIT'
[Service]
EnvironmentFile=/etc/updraft/environment
UNIT
systemctl daemon-reload
systemctl enable --now updraft-mount.service
systemctl restart codedeploy-agent
"""


# https://docs.aws.amazon.com/vpc/latest/userguide/work-with-nat-instances.html
NAT_USER_DATA = """\
dnf install -y iptables-services
systemctl enable --now iptables
echo net.ipv4.ip_forward=1 >/etc/sysctl.d/90-updraft-nat.conf
sysctl -p /etc/sysctl.d/90-updraft-nat.conf
iptables -t nat -A POSTROUTING -o "$(ip route show default | awk '{print $5; exit}')" -j MASQUERADE
iptables -F FORWARD
service iptables save
"""


class Bastion(Construct):
    """One small instance, reached by Session Manager only; `instance` and its `role`.

    Where it is the NAT instance as well, it stands in a public subnet with an address of its own and forwards for the private subnets.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        vpc: ec2.IVpc,
        security_group: ec2.ISecurityGroup,
        config: EnvironmentConfig,
    ) -> None:
        super().__init__(scope, construct_id)
        region = cdk.Stack.of(self).region
        user_data = ec2.UserData.for_linux()
        if config.bastion_is_nat:
            user_data.add_commands(NAT_USER_DATA)
        user_data.add_commands(
            USER_DATA.format(
                ssm_prefix=config.ssm_prefix,
                region=region,
                releases="/mnt/releases",
                namespace=f"{config.prefix}.internal",
                # The name of the task that it runs in.
                verifier="webserver" if config.topology == "merged" else "dag-processor",
            )
        )
        self.role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"),
        )
        # AWS's own policy for this would also let the instance read every parameter of the account.
        self.role.add_to_policy(iam.PolicyStatement(actions=SESSION_MANAGER, resources=["*"]))
        waive(
            policy_of(self.role),
            "Session Manager's actions take no resource",
            "AwsSolutions-IAM5[Resource::*]",
        )
        in_public = config.bastion_is_nat or not vpc.private_subnets
        self.instance = ec2.Instance(
            self,
            "Instance",
            vpc=vpc,
            vpc_subnets=ec2.SubnetSelection(subnets=vpc.public_subnets if in_public else vpc.private_subnets),
            associate_public_ip_address=True if in_public else None,
            source_dest_check=False if config.bastion_is_nat else None,
            instance_type=ec2.InstanceType(config.network.bastion_instance_type),
            machine_image=_image(config),
            role=self.role,
            security_group=security_group,
            user_data=user_data,
            # It runs once, at the first boot: changed in place, an instance would stop, start, and stay as it was.
            user_data_causes_replacement=True,
            # `require_imdsv2` would add a launch template with a fixed name: two environments would clash.
            http_tokens=ec2.HttpTokens.REQUIRED,
            detailed_monitoring=True,
            block_devices=[
                ec2.BlockDevice(device_name="/dev/xvda", volume=ec2.BlockDeviceVolume.ebs(16, encrypted=True))
            ],
        )
        waive(
            self.instance,
            "It holds nothing; termination protection would make its replacement by CloudFormation fail",
            "AwsSolutions-EC29",
        )
        cdk.Tags.of(self.instance).add(CODEDEPLOY_TAG, config.prefix)


def _image(config: EnvironmentConfig) -> ec2.IMachineImage:
    ami = config.network.bastion_ami
    if ami is not None:
        return ec2.MachineImage.generic_linux({config.region: ami})
    return ec2.MachineImage.latest_amazon_linux2023(cpu_type=ec2.AmazonLinuxCpuType.ARM_64)
