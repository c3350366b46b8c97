"""Who adopts, stops and renews a SageMaker job; run by unittest in Airflow's own environment."""

from __future__ import annotations

import asyncio
import threading
import time
import unittest
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

from airflow.sdk.exceptions import (
    AirflowException,
    AirflowTaskTimeout,
    TaskDeferralTimeout,
    TaskDeferred,
)

from runtime.sagemaker import jobs, operator, progress, trigger
from runtime.sagemaker.trigger import SageMakerJobTrigger
from tests.runtime.with_airflow.fake_sagemaker import (
    BROKEN,
    LOST,
    RETRIES,
    SETTINGS,
    THROTTLED,
    JobsCase,
    request,
)

CAPACITY = "CapacityError: Unable to provision requested ML compute capacity."


class TakingOver(JobsCase):
    def test_first_try_starts_one_tagged_job_and_defers(self) -> None:
        deferred = self.run_try()
        [name] = self.active
        self.assertEqual(deferred.trigger.watched.name, name)
        self.assertEqual(self.sagemaker.tags[f"arn:{name}"]["updraft:task"], "train")
        self.assertEqual(self.sagemaker.tags[f"arn:{name}"]["updraft:job-number"], "1")

    def test_retry_goes_on_with_the_job_that_runs(self) -> None:
        first = self.run_try().trigger.watched.name
        self.assertEqual(self.run_try(try_number=2).trigger.watched.name, first)
        self.assertEqual(list(self.sagemaker.jobs), [first])

    def test_retry_takes_the_result_of_a_job_that_completed_meanwhile(self) -> None:
        name = self.run_try().trigger.watched.name
        self.sagemaker.end(name, "Completed")
        self.assertEqual(self.run_try(try_number=2).trigger.watched.name, name)

    def test_retry_after_a_failed_job_starts_another_one(self) -> None:
        first = self.run_try().trigger.watched.name
        self.sagemaker.end(first, "Failed")
        second = self.run_try(try_number=2).trigger.watched.name
        self.assertNotEqual(first, second)
        self.assertEqual(self.active, [second])

    def test_task_that_ends_in_the_moment_of_its_deferral_has_no_job(self) -> None:
        self.defer()
        self.assertEqual(self.sagemaker.jobs, {})

    def test_crash_between_claim_and_submission_leaves_one_job(self) -> None:
        first = self.defer()
        name = self.run_try(try_number=2).trigger.watched.name
        asyncio.run(first.trigger.submit())
        self.assertEqual(list(self.sagemaker.jobs), [name])

    def test_moved_trigger_submits_no_second_job(self) -> None:
        deferred = self.run_try()
        _, values = deferred.trigger.serialize()
        asyncio.run(SageMakerJobTrigger(**values).submit())
        self.assertEqual(len(self.sagemaker.jobs), 1)

    def test_crash_of_a_task_that_holds_its_slot_right_after_submission_leaves_one_job(self) -> None:
        with (
            mock.patch.object(operator, "follow_with_hooks", side_effect=SystemExit),
            self.assertRaises(SystemExit),
        ):
            self.operator(deferrable=False).execute(self.context())
        name = self.run_try(try_number=2).trigger.watched.name
        self.assertEqual(list(self.sagemaker.jobs), [name])

    def test_resumption_without_an_event_starts_over(self) -> None:
        name = self.run_try().trigger.watched.name
        with self.assertRaises(TaskDeferred) as raised:
            self.operator().resume(self.context())
        self.assertEqual(raised.exception.trigger.watched.name, name)

    def test_error_after_acceptance_is_no_error(self) -> None:
        for error in (THROTTLED, BROKEN, LOST):
            with self.subTest(error=error):
                self.setUp()
                self.sagemaker.create_error = error
                self.sagemaker.error_comes_after_acceptance = True
                self.run_try()
                self.assertEqual(len(self.sagemaker.jobs), 1)

    def test_refused_submission_fails_the_try_and_the_next_one_submits_the_same_name(self) -> None:
        for error in (THROTTLED, BROKEN, LOST):
            with self.subTest(error=error):
                self.setUp()
                self.sagemaker.create_error = error
                with self.assertRaisesRegex(
                    jobs.SubmissionError, "did not take training job updraft-test-train-"
                ):
                    self.run_try()
                self.run_try(try_number=2)
                self.assertEqual(len(self.sagemaker.jobs), 1)


class Renewing(JobsCase):
    def test_clear_of_a_finished_task_is_a_new_job(self) -> None:
        first = self.run_try().trigger.watched.name
        self.sagemaker.end(first, "Completed")
        second = self.run_try(try_number=2, max_tries=2).trigger.watched.name
        self.assertNotEqual(first, second)
        self.assertEqual(self.sagemaker.stops, [])

    def test_cleared_task_that_restarts_first_stops_the_old_job_and_never_adopts_it(self) -> None:
        first = self.run_try().trigger.watched.name
        second = self.run_try(try_number=2, max_tries=2).trigger.watched.name
        self.assertEqual(self.active, [second])
        self.assertEqual(self.sagemaker.stops, [first])
        self.assertEqual(self.sagemaker.tags[f"arn:{first}"]["updraft:stop-reason"], "the task was cleared")

    def test_clear_after_fewer_retries_were_pushed_is_a_new_job(self) -> None:
        first = self.run_try().trigger.watched.name
        self.sagemaker.end(first, "Completed")
        with self.assertRaises(TaskDeferred) as raised:
            # Airflow makes `max_tries` from the one try so far and the new `retries`.
            self.operator(retries=RETRIES - 1).execute(self.context(try_number=2, max_tries=1))
        self.assertNotEqual(raised.exception.trigger.watched.name, first)

    def test_new_job_waits_until_the_stopped_one_has_ended(self) -> None:
        first = self.run_try().trigger.watched.name
        self.sagemaker.stop_training_job(first)
        self.run_try(try_number=2)
        self.assertEqual(self.sagemaker.jobs[first]["TrainingJobStatus"], "Stopped")

    def test_run_that_was_deleted_and_made_again_gets_a_job_of_its_own(self) -> None:
        first = self.run_try().trigger.watched.name
        self.sagemaker.end(first, "Completed")
        self.store.clear()
        second = self.run_try().trigger.watched.name
        self.assertNotEqual(first, second)

    def test_job_that_a_deleted_run_left_behind_is_stopped(self) -> None:
        first = self.run_try().trigger.watched.name
        self.store.clear()
        second = self.run_try().trigger.watched.name
        self.assertEqual(self.active, [second])
        self.assertEqual(self.sagemaker.stops, [first])


class FallingBack(JobsCase):
    """Instance types that have no capacity."""

    SPOT: ClassVar[dict[str, Any]] = {
        "spot": True,
        "instance_fallbacks": ["ml.g5.2xlarge", "ml.g4dn.xlarge"],
        "op_kwargs": {"CheckpointConfig": {"S3Uri": "s3://data/c"}},
    }

    def asked(self, name: str) -> str:
        return str(self.sagemaker.jobs[name]["ResourceConfig"]["InstanceType"])

    def submit(self, task: Any, *, event: dict[str, Any] | None = None, **context: Any) -> Any:
        """From the start or from an event to the next deferral, submission included."""
        with self.assertRaises(TaskDeferred) as raised:
            if event is None:
                task.execute(self.context(**context))
            else:
                task.resume(self.context(**context), event)
        asyncio.run(raised.exception.trigger.submit())
        return raised.exception.trigger

    def failed(self, waiting: Any, reason: str) -> dict[str, Any]:
        """The event of a job that fails so."""
        self.sagemaker.end(waiting.name, "Failed", FailureReason=reason)
        return {"name": waiting.name, "status": "Failed", "deadline": waiting.watched.deadline}

    def test_on_demand_sagemaker_chooses(self) -> None:
        waiting = self.submit(self.operator(instance_fallbacks=["ml.g5.2xlarge"]))
        config = self.sagemaker.jobs[waiting.name]["ResourceConfig"]
        types = [{"InstanceType": "ml.g5.xlarge"}, {"InstanceType": "ml.g5.2xlarge"}]
        self.assertEqual(config, {"InstanceCount": 1, "InstancePreferences": types})

    def test_on_spot_the_next_type_is_submitted_until_none_is_left(self) -> None:
        task = self.operator(**self.SPOT, execution_timeout=timedelta(seconds=50))
        waiting, tried = self.submit(task), []
        deadline = waiting.watched.deadline
        for _ in range(2):
            tried.append(self.asked(waiting.name))
            waiting = self.submit(task, event=self.failed(waiting, CAPACITY))
            self.assertEqual(waiting.watched.deadline, deadline)
        tried.append(self.asked(waiting.name))
        self.assertEqual(tried, ["ml.g5.xlarge", "ml.g5.2xlarge", "ml.g4dn.xlarge"])
        with self.assertRaisesRegex(AirflowException, "CapacityError"):
            task.resume(self.context(), self.failed(waiting, CAPACITY))

    def test_spot_that_was_waited_for_in_vain_is_a_lack_of_capacity(self) -> None:
        task = self.operator(**self.SPOT)
        waiting = self.submit(task)
        self.sagemaker.end(waiting.name, "Stopped", SecondaryStatus="MaxWaitTimeExceeded")
        del self.sagemaker.jobs[waiting.name]["TrainingStartTime"]
        event = {"name": waiting.name, "status": "Stopped"}
        self.assertEqual(self.asked(self.submit(task, event=event).name), "ml.g5.2xlarge")

    def test_another_failure_ends_the_try_and_the_retry_keeps_the_type(self) -> None:
        task = self.operator(**self.SPOT)
        waiting = self.submit(task, event=self.failed(self.submit(task), CAPACITY))
        with self.assertRaisesRegex(AirflowException, "AlgorithmError"):
            task.resume(self.context(), self.failed(waiting, "AlgorithmError: no such column"))
        self.assertEqual(self.asked(self.submit(task, try_number=2).name), "ml.g5.2xlarge")

    def test_retry_and_clear_begin_with_the_first_type_again(self) -> None:
        contexts: tuple[dict[str, Any], ...] = ({"try_number": 2}, {"try_number": 2, "max_tries": 2})
        for context in contexts:
            with self.subTest(context=context):
                self.setUp()
                task = self.operator(**self.SPOT | {"instance_fallbacks": ["ml.g5.2xlarge"]})
                waiting = self.submit(task, event=self.failed(self.submit(task), CAPACITY))
                with self.assertRaises(AirflowException):
                    task.resume(self.context(), self.failed(waiting, CAPACITY))
                self.assertEqual(self.asked(self.submit(task, **context).name), "ml.g5.xlarge")

    def test_lists_that_sagemaker_refuses_are_refused_first(self) -> None:
        for changes, says in (
            ({"instance_fallbacks": ["ml.g5.xlarge"]}, "each once"),
            ({"instance_fallbacks": ["a", "b", "c", "d", "e"]}, "at most 5"),
            ({"instance_fallbacks": ["a"], "kind": "tuning"}, "a tuning job has none"),
        ):
            with self.subTest(says=says), self.assertRaisesRegex(ValueError, says):
                tuning = {
                    "TrainingJobDefinition": request(SETTINGS),
                    "HyperParameterTuningJobConfig": {"ResourceLimits": {"MaxNumberOfTrainingJobs": 1}},
                }
                kwargs = {"op_kwargs": tuning} if changes.get("kind") == "tuning" else {}
                self.operator(**changes, **kwargs).execute(self.context())
        self.assertEqual(self.sagemaker.jobs, {})


class Stopping(JobsCase):
    def trigger(self, deferred: TaskDeferred) -> SageMakerJobTrigger:
        made = deferred.trigger
        made._task_instance = SimpleNamespace(dag_id="d", run_id="r", task_id="train", map_index=-1)
        return made

    def test_killed_trigger_stops_the_job_of_a_task_that_no_longer_waits(self) -> None:
        for state in ("failed", "success", "skipped", "queued", "running", None):
            with self.subTest(state=state):
                self.setUp()
                deferred = self.run_try()
                self.state = state
                asyncio.run(self.trigger(deferred).on_kill())
                self.assertEqual(self.sagemaker.stops, [deferred.trigger.watched.name])

    def test_kill_waits_for_a_submission_that_is_on_its_way(self) -> None:
        waiting = self.trigger(self.defer())
        self.state = "failed"
        create = self.sagemaker.create_training_job

        def slowly(**asked: Any) -> None:
            time.sleep(0.2)
            create(**asked)

        async def kill_at_once() -> None:
            submission = asyncio.create_task(waiting.submit())
            await asyncio.sleep(0)
            submission.cancel()
            await waiting.on_kill()

        with mock.patch.object(self.sagemaker, "create_training_job", slowly):
            asyncio.run(kill_at_once())
        self.assertEqual(self.sagemaker.stops, [waiting.watched.name])

    def test_kill_that_is_asked_for_again_before_it_is_done_stops_the_job_once(self) -> None:
        """Airflow's triggerer cancels a trigger with each of its loops until it has ended, and its `on_kill` with it."""
        waiting = self.trigger(self.run_try())
        self.state = "failed"
        state, asked = trigger.task_state, threading.Event()

        def slowly(*of: Any) -> str | None:
            asked.wait(10)
            return state(*of)

        async def killed_again_and_again() -> None:
            killing = asyncio.create_task(asyncio.wait_for(waiting.on_kill(), 30))
            for _ in range(3):
                await asyncio.sleep(0.01)
                killing.cancel()
            asked.set()
            await asyncio.wait([killing])
            while trigger._leaving:
                await asyncio.wait(trigger._leaving)

        with mock.patch.object(trigger, "task_state", slowly):
            asyncio.run(killed_again_and_again())
        self.assertEqual(self.sagemaker.stops, [waiting.watched.name])

    def cancelled(self, waiting: SageMakerJobTrigger) -> None:
        """Airflow cancels a trigger that follows its job, and does not come to its `on_kill`."""

        async def cancel() -> None:
            following = asyncio.Event()

            async def follow(*_: Any) -> str:
                following.set()
                await asyncio.sleep(60)
                return "Completed"

            with mock.patch.object(trigger, "follow_with_hooks", follow):
                running: asyncio.Future[Any] = asyncio.ensure_future(anext(waiting.run()))
                await following.wait()
                running.cancel()
                await asyncio.wait([running])
            self.assertTrue(running.cancelled())
            while trigger._leaving:
                await asyncio.wait(trigger._leaving)

        asyncio.run(cancel())

    def test_cancelled_trigger_stops_the_job_of_a_task_that_was_ended(self) -> None:
        waiting = self.trigger(self.run_try())
        self.state = "failed"
        self.cancelled(waiting)
        self.assertEqual(self.sagemaker.stops, [waiting.watched.name])

    def test_cancelled_trigger_of_a_task_that_waits_stops_nothing(self) -> None:
        waiting = self.trigger(self.run_try())
        self.state = "deferred"
        self.cancelled(waiting)
        self.assertEqual(self.sagemaker.stops, [])

    def test_kill_that_fails_is_told(self) -> None:
        waiting = self.trigger(self.run_try())
        self.state = "failed"
        with (
            mock.patch.object(waiting, "_stop_now", side_effect=RuntimeError("no SageMaker")),
            self.assertRaisesRegex(RuntimeError, "no SageMaker"),
        ):
            asyncio.run(waiting.on_kill())

    def test_moved_trigger_stops_nothing(self) -> None:
        deferred = self.run_try()
        self.state = "deferred"
        asyncio.run(self.trigger(deferred).on_kill())
        self.assertEqual(self.sagemaker.stops, [])

    def test_unknown_state_stops_nothing(self) -> None:
        deferred = self.run_try()
        with mock.patch.object(trigger, "task_state", side_effect=RuntimeError("no database")):
            asyncio.run(self.trigger(deferred).on_kill())
        self.assertEqual(self.sagemaker.stops, [])

    def sync_kill(self, state: str | None) -> list[str]:
        """A task that holds its slot gets SIGTERM while it follows its job."""
        task = self.operator(deferrable=False)

        async def killed(*_: Any) -> str:
            self.state = state
            task.on_kill()
            return "Stopped"

        with (
            mock.patch.object(operator, "follow_with_hooks", killed),
            self.assertRaisesRegex(AirflowException, "ended Stopped"),
        ):
            task.execute(self.context())
        return self.sagemaker.stops

    def test_kill_by_a_user_stops_and_a_leaving_worker_does_not(self) -> None:
        for state, stopped in (
            ("failed", 1), ("success", 1), ("restarting", 1), (None, 1), ("running", 0), ("queued", 0),
            ("up_for_retry", 0),
        ):  # fmt: skip
            with self.subTest(state=state):
                self.setUp()
                self.assertEqual(len(self.sync_kill(state)), stopped)

    def test_execution_timeout_stops_and_the_retry_starts_another_job(self) -> None:
        with (
            mock.patch.object(operator, "follow_with_hooks", side_effect=AirflowTaskTimeout),
            self.assertRaises(AirflowTaskTimeout),
        ):
            self.operator(deferrable=False).execute(self.context())
        self.assertEqual(len(self.sagemaker.stops), 1)
        self.run_try(try_number=2)
        self.assertEqual(len(self.sagemaker.jobs), 2)

    def test_deferred_execution_timeout_stops_in_the_trigger(self) -> None:
        deferred = self.run_try()
        waiting = self.trigger(deferred)

        async def first_event() -> Any:
            with mock.patch.object(trigger, "follow_with_hooks", side_effect=progress.DeadlineError):
                return await anext(waiting.run())

        event = asyncio.run(first_event())
        self.assertEqual(event.payload["status"], "TimedOut")
        self.assertEqual(self.sagemaker.stops, [waiting.watched.name])
        with self.assertRaises(AirflowTaskTimeout):
            self.operator().resume(self.context(), event.payload)

    def test_deadline_is_the_execution_timeout(self) -> None:
        before = time.time()
        with self.assertRaises(TaskDeferred) as raised:
            self.operator(execution_timeout=timedelta(seconds=50)).execute(self.context())
        self.assertAlmostEqual(raised.exception.trigger.watched.deadline, before + 50, delta=5)

    def test_deferral_that_took_too_long_stops(self) -> None:
        name = self.run_try().trigger.watched.name
        with self.assertRaises(TaskDeferralTimeout):
            self.operator().resume_execution("__fail__", {"error": "Trigger timeout"}, self.context())
        self.assertEqual(self.sagemaker.stops, [name])

    def test_failed_trigger_leaves_the_job_to_the_retry(self) -> None:
        self.run_try()
        with self.assertRaisesRegex(AirflowException, "Trigger failure"):
            self.operator().resume_execution("__fail__", {"error": "Trigger failure"}, self.context())
        self.assertEqual(self.sagemaker.stops, [])


if __name__ == "__main__":
    unittest.main()
