"""Slots do each job once, in order, and lose neither a thread nor memory to what goes wrong."""

import asyncio
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from serving.http.slots import DisplacedError, JobTimeoutError, Slots

WAIT_S = 60.0
"""For what has to come; generous, for the processors are shared."""


class Gate:
    """Work that says when it has begun and ends when it is let."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.open.wait(WAIT_S)
        return "through"


async def begun(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.begun.wait, WAIT_S)


def run(body: Callable[[Slots], Any], count: int = 1) -> None:
    async def with_slots() -> None:
        slots = Slots(count)
        try:
            await asyncio.wait_for(body(slots), 2 * WAIT_S)
        finally:
            slots.close()

    asyncio.run(with_slots())


def test_results_and_errors_come_back_and_one_slot_keeps_the_order() -> None:
    async def body(slots: Slots) -> None:
        order: list[int] = []

        def square(n: int) -> int:
            order.append(n)
            return n * n

        jobs = [slots.give(partial(square, n)) for n in range(50)]
        failing = slots.give(lambda: 1 / 0)
        leaving = slots.give(lambda: exit(3))
        last = slots.give(threading.get_ident)
        assert [await job.result for job in jobs] == [n * n for n in range(50)]
        assert order == list(range(50))
        with pytest.raises(ZeroDivisionError):
            await failing.result
        with pytest.raises(SystemExit):
            await leaving.result
        # the thread outlived both
        assert await last.result != threading.get_ident()
        assert slots.unfinished == 0

    run(body)


def test_slots_work_side_by_side() -> None:
    async def body(slots: Slots) -> None:
        both = threading.Barrier(2)
        jobs = [slots.give(lambda: both.wait(WAIT_S)) for _ in range(2)]
        assert sorted([await job.result for job in jobs]) == [0, 1]

    run(body, count=2)


def test_a_dropped_job_frees_its_place_at_once_and_never_runs() -> None:
    async def body(slots: Slots) -> None:
        gate, ran = Gate(), threading.Event()
        running = slots.give(gate)
        await begun(gate)
        waiting = slots.give(ran.set)
        assert slots.unfinished == 2
        slots.drop([waiting])
        assert slots.unfinished == 1
        slots.drop([waiting])
        assert slots.unfinished == 1, "dropped twice, it is counted once"
        gate.open.set()
        assert await running.result == "through"
        assert await slots.give(lambda: "next").result == "next"
        assert not ran.is_set()
        assert slots.unfinished == 0

    run(body)


def test_a_dropped_job_that_runs_gives_its_slot_to_the_next_but_not_without_end() -> None:
    async def body(slots: Slots) -> None:
        first, second = Gate(), Gate()
        running = slots.give(first)
        await begun(first)
        slots.drop([running])
        assert running.result.cancelled()
        assert slots.unfinished == 0
        # the decoder it is in cannot be stopped; the slot does not wait for it
        assert await slots.give(lambda: "next").result == "next"
        stuck = slots.give(second)
        await begun(second)
        slots.drop([stuck])
        assert slots.unfinished == 1, "one thread that goes on is enough for one slot"
        waiting = slots.give(lambda: "after")
        await asyncio.sleep(0.1)
        assert not waiting.result.done()
        first.open.set()
        second.open.set()
        assert await waiting.result == "after"
        assert slots.unfinished == 0

    run(body)


def spin(stop: threading.Event) -> None:
    while not stop.is_set():
        sum(range(1000))


def test_a_job_that_takes_too_long_is_abandoned_and_its_slot_is_free() -> None:
    async def body(slots: Slots) -> None:
        stop = threading.Event()
        before = threading.active_count()
        try:
            with pytest.raises(JobTimeoutError, match=r"0\.2 s of processor time"):
                await slots.give(partial(spin, stop), cpu_limit_s=0.2).result
            assert slots.unfinished == 0
            assert await slots.give(lambda: "next", cpu_limit_s=0.2).result == "next"
            # one that waits without computing is not meant
            assert await slots.give(partial(stop.wait, 1.2), cpu_limit_s=0.2).result is False
        finally:
            stop.set()
        async for _ in moments():
            if threading.active_count() <= before + 1:
                break
        else:
            pytest.fail("the abandoned thread is still there")

    async def patient(slots: Slots) -> None:
        await asyncio.wait_for(body(slots), 2 * WAIT_S)

    slots = Slots(1)
    asyncio.run(patient(slots))
    slots.close()


def test_closing_does_not_wait_for_ever() -> None:
    async def body(slots: Slots) -> None:
        gate = Gate()
        slots.give(gate)
        await begun(gate)
        started = time.monotonic()
        await asyncio.to_thread(slots.close, 0.2)
        assert time.monotonic() - started < WAIT_S
        gate.open.set()

    run(body)


def test_closing_waits_for_what_runs_and_drops_what_waits() -> None:
    async def body(slots: Slots) -> None:
        gate, ran = Gate(), threading.Event()
        running, waiting = slots.give(gate), slots.give(ran.set)
        await begun(gate)
        closing = asyncio.create_task(asyncio.to_thread(slots.close))
        with pytest.raises(asyncio.CancelledError):
            await waiting.result
        await asyncio.sleep(0.1)
        assert not closing.done()
        gate.open.set()
        await closing
        assert await running.result == "through"
        assert not ran.is_set()
        assert slots.unfinished == 0
        with pytest.raises(RuntimeError, match="closed"):
            slots.give(ran.set)

    run(body)


def test_a_loop_that_ended_first_costs_no_slot() -> None:
    slots, gate = Slots(1), Gate()

    async def leave_behind() -> None:
        slots.give(gate)
        await begun(gate)

    async def ask() -> str:
        return await slots.give(lambda: "next").result

    asyncio.run(leave_behind())
    gate.open.set()
    assert asyncio.run(ask()) == "next"
    slots.close()


class Image:
    """Stands for the bytes of an upload."""


def test_a_dropped_job_lets_its_image_go_while_the_slots_are_still_busy() -> None:
    async def body(slots: Slots) -> None:
        gate, image = Gate(), Image()
        watch = weakref.ref(image)
        running = slots.give(gate)
        await begun(gate)
        waiting = slots.give(partial(id, image))
        slots.drop([waiting])
        del image, waiting
        assert watch() is None
        gate.open.set()
        await running.result

    run(body)


def test_nothing_of_a_job_is_held_once_it_is_answered() -> None:
    async def body(slots: Slots) -> None:
        for fails in (False, True):
            image = Image()
            watch = weakref.ref(image)

            def work(image: Image = image, fails: bool = fails) -> None:
                assert not fails, image

            job = slots.give(work)
            assert isinstance((await asyncio.gather(job.result, return_exceptions=True))[0], AssertionError) is fails
            del job, image, work
            async for _ in moments():
                if watch() is None:
                    break
            else:
                pytest.fail("the slot still holds the image")

    run(body)


async def moments() -> AsyncIterator[None]:
    """Some: the slot lets go a moment after it has told."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        yield
        await asyncio.sleep(0.01)


def test_who_has_had_less_of_late_comes_first() -> None:
    async def body(slots: Slots) -> None:
        order: list[str] = []

        def work(name: str) -> None:
            until = time.thread_time() + (0.05 if name.startswith("greedy") else 0.0)
            order.append(name)
            while time.thread_time() < until:
                pass

        gate = Gate()
        jobs: list[Any] = [
            slots.give(gate, "greedy"),
            *(slots.give(partial(work, f"greedy {n}"), "greedy") for n in range(4)),
        ]
        await begun(gate)
        slots._used.add("greedy", 0.1)
        jobs += [slots.give(partial(work, "modest"), "modest"), slots.give(partial(work, "new"), "new")]
        gate.open.set()
        await asyncio.gather(*(job.result for job in jobs))
        assert sorted(order[:2]) == ["modest", "new"]
        assert order[2:] == [f"greedy {n}" for n in range(4)]

    run(body)


def test_a_full_queue_makes_room_for_who_has_less_in_it() -> None:
    async def body(slots: Slots) -> None:
        gate = Gate()
        running = slots.give(gate, "greedy")
        await begun(gate)
        waiting = [slots.give(lambda: "done", "greedy") for _ in range(3)]
        assert not slots.may_displace("greedy")
        assert not slots.displace("greedy")
        assert slots.may_displace("modest")
        assert slots.displace("modest")
        with pytest.raises(DisplacedError):
            await waiting[-1].result
        modest = slots.give(lambda: "served", "modest")
        assert not slots.displace("modest"), "now it has nearly as much"
        gate.open.set()
        assert await modest.result == "served"
        assert [await job.result for job in (running, *waiting[:-1])] == ["through", "done", "done"]
        assert slots.unfinished == 0

    run(body)
