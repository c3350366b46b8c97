"""What the topic of failed runs says, by a queue that is subscribed to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ops.target import target_of
from tests.end_to_end.platform import client

ASKED_TIMES, WAIT_SECONDS = 15, 2


@contextmanager
def failures_queue(name: str) -> Iterator[Callable[[str], list[dict[str, str]]]]:
    """A function that gives the messages about a run, waiting for the first one; the queue goes at the end."""
    sqs, sns = client("sqs"), client("sns")
    topic = target_of("local").output("workflows", "FailuresTopicArn")
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    # Without this SNS delivers nothing, and says nothing.
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})
    subscription = sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, ReturnSubscriptionArn=True)
    messages: list[dict[str, str]] = []

    def of_run(run_id: str) -> list[dict[str, str]]:
        for _ in range(ASKED_TIMES):
            found = [message for message in messages if run_id in message["Message"]]
            if found:
                return found
            answer = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=WAIT_SECONDS)
            for item in answer.get("Messages", []):
                messages.append(json.loads(item["Body"]))
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=item["ReceiptHandle"])
        return []

    yield of_run
    sns.unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])
    sqs.delete_queue(QueueUrl=queue)
