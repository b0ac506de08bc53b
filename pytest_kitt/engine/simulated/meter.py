"""What does /metrics tell? vLLM's names for vLLM's things, and ours for what only this engine knows."""

from collections import Counter
from collections.abc import Mapping

from pytest_kitt.engine.simulated.exposition import Histogram, Page
from pytest_kitt.engine.simulated.prefix import PrefixCache
from pytest_kitt.engine.simulated.scheduler import Scheduler

# vLLM's bounds, so that what reads its histograms reads these
_TTFT_S = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
    20,
    40,
    80,
    160,
    640,
    2560,
)
_ITL_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_REQUEST_S = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
_FINISHED = ("stop", "length", "abort")


class Meter:
    """Everything that is counted; times are those of the timetable, lateness is apart."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.finished: Counter[str] = Counter()
        self.ttft_s = Histogram(_TTFT_S)
        self.itl_s = Histogram(_ITL_S)
        self.queue_s = Histogram(_REQUEST_S)
        self.e2e_s = Histogram(_REQUEST_S)
        self.lateness_sum_s = 0.0
        self.lateness_max_s = 0.0

    def count_lateness(self, lateness_s: float) -> None:
        """A token was written so long after it was due."""
        self.lateness_sum_s += lateness_s
        self.lateness_max_s = max(self.lateness_max_s, lateness_s)

    def count_end(self, finish_reason: str) -> None:
        """A request has ended; to vLLM's engine the end of a call is a stop like any other."""
        self.finished["stop" if finish_reason == "tool_calls" else finish_reason] += 1

    def page(
        self, model: str, scheduler: Scheduler, prefixes: PrefixCache | None, hardware: Mapping[str, str]
    ) -> bytes:
        """The answer of /metrics."""
        page = Page({"model_name": model, "engine": "0"})
        self._add_state(page, scheduler)
        self._add_requests(page)
        if prefixes is not None:
            page.add("counter", "vllm:prefix_cache_queries_total", prefixes.queries, "Prompt tokens looked up")
            page.add("counter", "vllm:prefix_cache_hits_total", prefixes.hits, "Prompt tokens found in the cache")
        late_sum, late_max = "simulated:token_lateness_seconds_total", "simulated:token_lateness_seconds_max"
        page.add("counter", late_sum, self.lateness_sum_s, "From when tokens were due to the end of their write")
        page.add("gauge", late_max, self.lateness_max_s, "The longest of these")
        if hardware:
            page.add_family("gauge", "simulated:hardware_info", [(hardware, 1)], "The virtual hardware")
        return page.render()

    def _add_state(self, page: Page, scheduler: Scheduler) -> None:
        page.add("gauge", "vllm:num_requests_running", scheduler.running, "Requests in service")
        page.add("gauge", "vllm:num_requests_waiting", scheduler.waiting, "Requests that wait")
        page.add("gauge", "vllm:kv_cache_usage_perc", scheduler.kv_usage, "Share of the KV cache in use, 1 is all")
        page.add("gauge", "vllm:gpu_cache_usage_perc", scheduler.kv_usage, "The same under its older name")
        page.add("counter", "vllm:num_preemptions_total", scheduler.preemptions, "Requests put out for want of room")

    def _add_requests(self, page: Page) -> None:
        page.add("counter", "vllm:prompt_tokens_total", self.prompt_tokens, "Prompt tokens of requests that started")
        page.add("counter", "vllm:generation_tokens_total", self.generation_tokens, "Tokens made")
        ends = [({"finished_reason": reason}, self.finished[reason]) for reason in _FINISHED]
        page.add_family("counter", "vllm:request_success_total", ends, "Requests that ended")
        page.add_histogram("vllm:time_to_first_token_seconds", self.ttft_s, "From arrival to the first token")
        page.add_histogram("vllm:inter_token_latency_seconds", self.itl_s, "From each token to the next")
        page.add_histogram("vllm:request_queue_time_seconds", self.queue_s, "From arrival to the start of service")
        page.add_histogram("vllm:e2e_request_latency_seconds", self.e2e_s, "From arrival to the last token")
