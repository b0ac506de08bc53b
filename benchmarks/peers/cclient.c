/*
 * What does it cost at least to time every token? A closed-loop client that does nothing else.
 *
 *   cclient PORT STREAMS REQUESTS TOKENS PROMPT_WORDS [STAMPS]
 *
 * One thread, epoll, one receive buffer for all. A token's time is the kernel's stamp of the segment that completed its
 * event (SO_TIMESTAMPNS), moved to CLOCK_MONOTONIC by a pair of readings after each epoll_wait; a read that completes
 * several events gives all of them one time. Events are counted by the blank line that ends them, not parsed: a good
 * answer has TOKENS of them, one with the usage, and [DONE].
 *
 * Prints {"cpu_s", "wall_s", "rss_bytes", "chunks", "merged", "unstamped"}: its own CPU time and the wall time from the
 * first connect to the last answer, its peak memory, tokens received, those that came with another one in one read, and
 * reads without a stamp. STAMPS is a file for the times: per request its send time, then TOKENS receive times, nanoseconds
 * as native 64-bit integers; requests have the X-Request-Id c-0, c-1, ...
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 1 << 16, EVENTS = 512, BODY = 1 << 16, TAIL = 5 };

struct stream {
	int fd, request; /* the request being answered */
	int events;      /* of its answer, completed so far */
	char tail[TAIL]; /* the last bytes of its answer */
};

static int n_requests, n_tokens, n_sent, n_done;
static long merged, unstamped;
static uint64_t *stamps; /* n_tokens + 1 per request */
static char body[BODY];
static int body_len;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int64_t clock_ns(clockid_t id)
{
	struct timespec t;
	clock_gettime(id, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static uint64_t *stamps_of(const struct stream *s) { return stamps + (size_t)s->request * (size_t)(n_tokens + 1); }

static void make_body(int words)
{
	body_len = snprintf(body, BODY, "{\"model\":\"truth\",\"max_tokens\":%d,\"temperature\":0.0,\"ignore_eos\":true,"
		"\"stream\":true,\"stream_options\":{\"include_usage\":true},\"prompt\":\"word", n_tokens);
	for (int i = 1; i < words && body_len < BODY - 8; i++) body_len += sprintf(body + body_len, " word");
	body_len += sprintf(body + body_len, "\"}");
}

static void ask(struct stream *s)
{
	static char message[BODY + 256];
	s->request = n_sent++;
	s->events = 0;
	memset(s->tail, 0, TAIL);
	int n = sprintf(message, "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
		"X-Request-Id: c-%d\r\nContent-Length: %d\r\n\r\n%s", s->request, body_len, body);
	stamps_of(s)[0] = (uint64_t)clock_ns(CLOCK_MONOTONIC);
	if (send(s->fd, message, (size_t)n, 0) != n) die("send");
}

static void open_stream(struct stream *s, int epoll, int port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct epoll_event e = {.events = EPOLLIN, .data.ptr = s};
	int on = 1;
	s->fd = socket(AF_INET, SOCK_STREAM, 0);
	if (s->fd < 0 || setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on)) die("socket");
	if (setsockopt(s->fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on)) die("SO_TIMESTAMPNS");
	if (connect(s->fd, (struct sockaddr *)&to, sizeof to)) die("connect");
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, s->fd, &e)) die("epoll_ctl");
}

/* Keep the last TAIL bytes of an answer. */
static void keep_tail(struct stream *s, const char *p, size_t n)
{
	if (n < TAIL) {
		memmove(s->tail, s->tail + n, TAIL - n);
		memcpy(s->tail + TAIL - n, p, n);
	} else {
		memcpy(s->tail, p + n - TAIL, TAIL);
	}
}

/* Count the events that some bytes complete, and note their time. */
static void take(struct stream *s, const char *p, size_t n, uint64_t at)
{
	const char *end = p + n;
	int before = s->events;
	if (!s->tail[TAIL - 1] && memcmp(p, "HTTP/1.1 200", n < 12 ? n : 12)) {
		fprintf(stderr, "the server answered %.*s\n", (int)(n < 64 ? n : 64), p);
		exit(1);
	}
	for (const char *q = s->tail[TAIL - 1] == '\n' && *p == '\n' ? p - 1 : memmem(p, n, "\n\n", 2); q;
	     q = memmem(q + 2, (size_t)(end - q - 2), "\n\n", 2))
		if (++s->events <= n_tokens) stamps_of(s)[s->events] = at;
	int tokens = (s->events < n_tokens ? s->events : n_tokens) - (before < n_tokens ? before : n_tokens);
	if (tokens > 1) merged += tokens;
	keep_tail(s, p, n);
}

/* When the kernel received what was read; now, if it does not say: it starts to stamp a little after it was asked to. */
static int64_t received_ns(struct msghdr *m, int64_t realtime_ahead_ns)
{
	struct cmsghdr *h = CMSG_FIRSTHDR(m);
	struct timespec t;
	if (!h || h->cmsg_type != SCM_TIMESTAMPNS) { unstamped++; return clock_ns(CLOCK_MONOTONIC); }
	memcpy(&t, CMSG_DATA(h), sizeof t);
	return t.tv_sec * 1000000000ll + t.tv_nsec - realtime_ahead_ns;
}

static void receive(struct stream *s, int64_t realtime_ahead_ns)
{
	static char buffer[BUFFER];
	char control[64];
	struct iovec room = {buffer, BUFFER};
	struct msghdr m = {.msg_iov = &room, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	ssize_t n = recvmsg(s->fd, &m, MSG_DONTWAIT);
	if (n < 0 && errno == EAGAIN) return;
	if (n < 0) die("recvmsg");
	if (!n) { fputs("the server closed a connection\n", stderr); exit(1); }
	take(s, buffer, (size_t)n, (uint64_t)received_ns(&m, realtime_ahead_ns));
	if (s->events == n_tokens + 2 && !memcmp(s->tail, "0\r\n\r\n", TAIL)) {
		n_done++;
		if (n_sent < n_requests) ask(s);
	}
}

static long peak_bytes(void) /* getrusage's figure is at least that of the process that started this one */
{
	char line[256];
	long kb = 0;
	FILE *f = fopen("/proc/self/status", "r");
	while (f && fgets(line, sizeof line, f)) sscanf(line, "VmHWM: %ld", &kb);
	if (f) fclose(f);
	return kb * 1024;
}

int main(int argc, char **argv)
{
	if (argc < 6) { fputs("usage: cclient PORT STREAMS REQUESTS TOKENS PROMPT_WORDS [STAMPS]\n", stderr); return 2; }
	int n_streams = atoi(argv[2]);
	n_requests = atoi(argv[3]);
	n_tokens = atoi(argv[4]);
	make_body(atoi(argv[5]));
	if (n_streams > n_requests) n_streams = n_requests;
	struct rlimit files;
	if (!getrlimit(RLIMIT_NOFILE, &files)) { files.rlim_cur = files.rlim_max; setrlimit(RLIMIT_NOFILE, &files); }
	struct stream *streams = calloc((size_t)n_streams, sizeof *streams);
	size_t n_stamps = (size_t)n_requests * (size_t)(n_tokens + 1);
	stamps = calloc(n_stamps, sizeof *stamps);
	int epoll = epoll_create1(0);
	if (!streams || !stamps || epoll < 0) die("start");

	int64_t began = clock_ns(CLOCK_MONOTONIC);
	for (int i = 0; i < n_streams; i++) open_stream(streams + i, epoll, atoi(argv[1]));
	for (int i = 0; i < n_streams; i++) ask(streams + i);
	while (n_done < n_requests) {
		struct epoll_event ready[EVENTS];
		int n = epoll_wait(epoll, ready, EVENTS, -1);
		int64_t ahead = clock_ns(CLOCK_REALTIME) - clock_ns(CLOCK_MONOTONIC);
		for (int i = 0; i < n; i++) receive(ready[i].data.ptr, ahead);
	}
	int64_t ended = clock_ns(CLOCK_MONOTONIC), cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);

	if (argc > 6) {
		FILE *f = fopen(argv[6], "wb");
		if (!f || fwrite(stamps, sizeof *stamps, n_stamps, f) != n_stamps || fclose(f)) die(argv[6]);
	}
	printf("{\"cpu_s\": %.6f, \"wall_s\": %.6f, \"rss_bytes\": %ld, \"chunks\": %ld, \"merged\": %ld, "
	       "\"unstamped\": %ld}\n", (double)cpu / 1e9, (double)(ended - began) / 1e9, peak_bytes(),
	       (long)n_requests * n_tokens, merged, unstamped);
	return 0;
}
