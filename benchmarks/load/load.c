/* A load client for TCP servers on loopback: one thread, one epoll, and every echoed byte compared with what was sent.
 *
 *   load echo    --port P   connections that play ping-pong; an operation is one message out and the same one back
 *   load connect --port P   an operation is connect, one message out and back, close
 *   load refuse  --port P   an operation is connect, then the server's close or reset
 *   load idle    --port P   connections that echo once, are held until stdin says more or a signal comes, echo again
 *
 * With --step it writes "ready" after the warm-up and "measured" after the measured part, and goes on when stdin gives
 * a line or ends: whoever reads the server's clock does it there. (idle always stops at "ready".) The result is one
 * line of JSON on stdout. Exit code 0: everything came back; 1: something did not, and stderr says what; 2: usage.
 *
 * A message is a window into one table of random bytes; connection and message number choose the window. So a byte
 * lost, doubled, changed or sent to the wrong connection shows, and no connection needs a buffer of its own.
 *
 * Closing: the client half-closes, waits for the server's end of stream and closes. That is the orderly way every
 * server must handle, and it proves that nothing surplus follows the last message; the price is a port in TIME_WAIT on
 * the client's side, hence the many source addresses. --reset closes with SO_LINGER 0 instead (a RST, no TIME_WAIT):
 * for servers seen from clients that vanish, and not comparable with the orderly figures.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { WINDOWS = 65536, SCRATCH = 262144, BATCH = 512, OPENING_AT_ONCE = 128, MAX_SIZE = 16 << 20 };
#define SECOND 1000000000ull

enum mode { ECHO, CONNECT, REFUSE, IDLE };
enum phase { OPENING, WORKING, LEAVING };
enum state { CLOSED, CONNECTING, QUIET, WAITING_ECHO, WAITING_CLOSE, WAITING_REFUSAL };

struct connection {
    int fd;
    uint32_t message;          /* how many were begun: chooses the window */
    uint32_t sent, received;   /* bytes of the current message */
    uint64_t began;            /* ns; of the current operation */
    enum state state;
};

static struct {
    enum mode mode;
    struct sockaddr_in server;
    uint32_t connections, size, sources, rate;
    uint64_t operations, warmup, duration, timeout;
    bool step, reset, spin, histogram;
} options = {.connections = 64, .size = 64, .sources = 64, .warmup = 1000, .timeout = 10 * SECOND};

/* What is reported. */
static uint64_t operations, errors, lost, lost_bytes, corrupt, surplus_bytes, ended_by_fin, ended_by_reset, farewell_bytes;
static uint64_t wall;
static char first_error[256];
static uint32_t histogram[64 * 32]; /* latencies: 32 steps to each power of two, so within 3 % */

/* What is under way. */
static enum phase phase;
static struct connection *connections;
static uint32_t opened, active, next_source, turn;
static uint64_t quota, begun, deadline, due; /* of the working phase: operations, or a time */
static unsigned char *table, scratch[SCRATCH];
static int epoll_fd;
static volatile sig_atomic_t interrupted;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

__attribute__((format(printf, 2, 3), noreturn)) static void die(int code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(code);
}

/* ---- latencies ---- */

static uint32_t bucket(uint64_t ns)
{
    if (ns < 32)
        return (uint32_t)ns;
    uint32_t shift = (uint32_t)(63 - __builtin_clzll(ns)) - 5;
    return (shift + 1) * 32 + (uint32_t)((ns >> shift) - 32);
}

static double bucket_end_us(uint32_t index)
{
    uint64_t end = index < 32 ? index + 1 : (uint64_t)(index % 32 + 33) << (index / 32 - 1);
    return (double)end / 1000;
}

static double percentile_us(double share)
{
    uint64_t wanted = (uint64_t)((double)operations * share), seen = 0;
    for (uint32_t i = 0; i < sizeof histogram / sizeof *histogram; i++) {
        seen += histogram[i];
        if (histogram[i] && seen > wanted)
            return bucket_end_us(i);
    }
    for (uint32_t i = sizeof histogram / sizeof *histogram; i-- > 0;)
        if (histogram[i])
            return bucket_end_us(i);
    return 0;
}

/* ---- one connection ---- */

static void settle(struct connection *c, uint64_t now);

static const unsigned char *expected(const struct connection *c)
{
    uint32_t number = (uint32_t)(c - connections);
    return table + (number * 7919u + c->message * 40503u) % WINDOWS;
}

static void discard(struct connection *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->state = CLOSED;
}

__attribute__((format(printf, 3, 4))) static void fail(struct connection *c, uint64_t now, const char *format, ...)
{
    errors++;
    if (!first_error[0]) {
        va_list arguments;
        int used = snprintf(first_error, sizeof first_error, "connection %u, message %u: ", (uint32_t)(c - connections), c->message);
        va_start(arguments, format);
        vsnprintf(first_error + used, sizeof first_error - (size_t)used, format, arguments);
        va_end(arguments);
    }
    discard(c);
    settle(c, now);
}

static void count(struct connection *c, uint64_t now)
{
    operations++;
    histogram[bucket(now - c->began)]++;
}

static void push(struct connection *c, uint64_t now)
{
    while (c->sent < options.size) {
        ssize_t n = send(c->fd, expected(c) + c->sent, options.size - c->sent, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN && errno != EINTR) {
                lost++, lost_bytes += options.size - c->received;
                fail(c, now, "send: %s", strerror(errno));
            }
            return;
        }
        c->sent += (uint32_t)n;
    }
}

static void begin_message(struct connection *c, uint64_t now)
{
    c->message++;
    c->sent = c->received = 0;
    c->state = WAITING_ECHO;
    push(c, now);
}

static void begin_connection(struct connection *c, uint64_t now)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in source = {.sin_family = AF_INET};
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.u32 = (uint32_t)(c - connections)};
    if (fd < 0)
        die(1, "cannot open a socket: %s", strerror(errno));
    if (options.sources > 1) { /* 127.0.0.1, 127.0.0.2, ...: each brings a range of ports of its own */
        source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + next_source++ % options.sources);
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        if (bind(fd, (struct sockaddr *)&source, sizeof source) < 0)
            die(1, "cannot bind a source address: %s", strerror(errno));
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->fd = fd;
    c->state = CONNECTING;
    c->began = now;
    if (connect(fd, (struct sockaddr *)&options.server, sizeof options.server) < 0 && errno != EINPROGRESS)
        die(1, "cannot connect: %s%s", strerror(errno), errno == EADDRNOTAVAIL ? " (out of ports: raise --sources)" : "");
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        die(1, "epoll_ctl: %s", strerror(errno));
}

static void half_close(struct connection *c)
{
    c->state = WAITING_CLOSE;
    shutdown(c->fd, SHUT_WR);
}

/* Whether the working phase may begin one more operation; counts it when it may. */
static bool take(uint64_t now)
{
    if (quota ? begun >= quota : now >= deadline)
        return false;
    begun++;
    return true;
}

/* The connection has nothing under way any more: give it the next thing, if there is one. */
static void settle(struct connection *c, uint64_t now)
{
    active--;
    if (phase == OPENING && opened < options.connections) {
        active++;
        begin_connection(&connections[opened++], now);
    } else if (phase == WORKING && !options.rate) {
        bool renews = options.mode == CONNECT || options.mode == REFUSE;
        if ((c->fd >= 0 || renews) && take(now)) {
            active++;
            if (renews) {
                begin_connection(c, now);
            } else {
                c->began = now;
                begin_message(c, now);
            }
        }
    }
}

static void echoed(struct connection *c, uint64_t now)
{
    if (options.mode != CONNECT || phase != WORKING) {
        c->state = QUIET;
        count(c, now);
        settle(c, now);
    } else if (options.reset) {
        struct linger at_once = {.l_onoff = 1, .l_linger = 0};
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        discard(c);
        count(c, now);
        settle(c, now);
    } else {
        half_close(c);
    }
}

static void ended(struct connection *c, uint64_t now, int error)
{
    enum state state = c->state;
    if (state == WAITING_REFUSAL ? error && error != ECONNRESET && error != EPIPE : error) {
        if (state == WAITING_ECHO)
            lost++, lost_bytes += options.size - c->received;
        fail(c, now, "%s after %u of %u bytes", strerror(error), c->received, options.size);
    } else if (state == WAITING_ECHO) {
        lost++, lost_bytes += options.size - c->received;
        fail(c, now, "the server closed after %u of %u bytes", c->received, options.size);
    } else if (state == QUIET) {
        fail(c, now, "the server closed an idle connection");
    } else {
        *(error ? &ended_by_reset : &ended_by_fin) += 1;
        discard(c);
        if (phase == WORKING)
            count(c, now);
        settle(c, now);
    }
}

/* Takes n received bytes; returns whether the connection is still the same one and open. */
static bool receive(struct connection *c, uint64_t now, uint32_t n)
{
    if (c->state == WAITING_REFUSAL) {
        farewell_bytes += n;
        return true;
    }
    uint32_t missing = c->state == WAITING_ECHO ? options.size - c->received : 0;
    uint32_t wanted = n < missing ? n : missing;
    if (memcmp(scratch, expected(c) + c->received, wanted) != 0) {
        uint32_t at = 0;
        while (scratch[at] == expected(c)[c->received + at])
            at++;
        corrupt++;
        fail(c, now, "byte %u of %u is not the one that was sent (lost, doubled or changed)", c->received + at, options.size);
        return false;
    }
    c->received += wanted;
    if (n > wanted) {
        surplus_bytes += n - wanted;
        fail(c, now, "%u bytes came back that were never sent", n - wanted);
        return false;
    }
    if (c->received < options.size)
        return true;
    int fd = c->fd;
    echoed(c, now);
    return c->fd == fd && options.mode != CONNECT;
}

static void pull(struct connection *c, uint64_t now, uint32_t flags)
{
    for (;;) {
        ssize_t n = recv(c->fd, scratch, sizeof scratch, 0);
        if (n <= 0) {
            if (n == 0 || (errno != EAGAIN && errno != EINTR))
                ended(c, now, n == 0 ? 0 : errno);
            return;
        }
        if (!receive(c, now, (uint32_t)n) && !(c->state == WAITING_CLOSE && flags & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
            return;
        if (n < SCRATCH && !(flags & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
            return; /* edge-triggered: a short read emptied the queue, and what comes later is a new edge */
    }
}

static void connected(struct connection *c, uint64_t now)
{
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (options.mode == REFUSE && (error == 0 || error == ECONNRESET)) {
        c->state = WAITING_REFUSAL;
        if (error)
            ended(c, now, error);
    } else if (error) {
        fail(c, now, "connect: %s", strerror(error));
    } else {
        begin_message(c, now);
    }
}

static void handle(struct connection *c, uint32_t flags, uint64_t now)
{
    if (c->fd < 0)
        return;
    if (c->state == CONNECTING) {
        if (!(flags & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
            return;
        connected(c, now);
        if (c->fd < 0 || c->state == CONNECTING)
            return;
    } else if (c->state == WAITING_ECHO && c->sent < options.size && flags & EPOLLOUT) {
        push(c, now);
    }
    if (c->fd >= 0 && c->state != CONNECTING && flags & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        pull(c, now, flags);
}

/* ---- all of them ---- */

/* With --rate: begin what is due on connections taken in turn. Latency counts from when an operation was due, not from
 * when a connection was free for it, so that a server's stall shows in every operation it delayed. */
static void begin_due(uint64_t now)
{
    while (due <= now) {
        uint32_t tried = 0;
        while (tried < options.connections && connections[turn].state != QUIET)
            turn = (turn + 1) % options.connections, tried++;
        if (tried == options.connections || !take(due))
            return;
        connections[turn].began = due;
        active++;
        begin_message(&connections[turn], now);
        turn = (turn + 1) % options.connections;
        due += SECOND / options.rate;
    }
}

static void give_up(uint64_t now)
{
    enum phase stalled = phase;
    phase = LEAVING; /* nothing begins any more */
    for (uint32_t i = 0; i < opened; i++) {
        struct connection *c = &connections[i];
        if (c->state == WAITING_ECHO) {
            lost++, lost_bytes += options.size - c->received;
            fail(c, now, "no more than %u of %u bytes came back in time", c->received, options.size);
        } else if (c->state != QUIET && c->state != CLOSED) {
            fail(c, now, c->state == CONNECTING ? "the connection was not accepted in time" : "the server did not close in time");
        }
    }
    phase = stalled;
}

static void run(void)
{
    struct epoll_event events[BATCH];
    uint64_t progress = now_ns();
    for (;;) {
        uint64_t now = now_ns();
        bool paced = phase == WORKING && options.rate && (quota ? begun < quota : due < deadline && now < deadline);
        if (paced)
            begin_due(now);
        if (!active && (!paced || due <= now)) /* all done, or nobody left to begin on */
            return;
        int patience = options.spin ? 0 : paced ? 1 : (int)(options.timeout / 1000000);
        int n = epoll_wait(epoll_fd, events, BATCH, patience);
        if (n < 0 && errno != EINTR)
            die(1, "epoll_wait: %s", strerror(errno));
        now = now_ns();
        for (int i = 0; i < n; i++)
            handle(&connections[events[i].data.u32], events[i].events, now);
        if (n > 0 || (paced && !active))
            progress = now;
        else if (now - progress >= options.timeout) {
            give_up(now);
            return;
        }
    }
}

static void open_all(void)
{
    phase = OPENING;
    active = opened = options.connections < OPENING_AT_ONCE ? options.connections : OPENING_AT_ONCE;
    for (uint32_t i = 0; i < active; i++)
        begin_connection(&connections[i], now_ns());
    run();
}

static void work(uint64_t wanted, uint64_t duration)
{
    uint64_t now = now_ns();
    phase = WORKING;
    quota = wanted;
    begun = active = 0;
    due = now;
    deadline = now + duration;
    operations = 0;
    memset(histogram, 0, sizeof histogram);
    if (!options.rate) {
        if (options.mode == CONNECT || options.mode == REFUSE)
            opened = options.connections;
        active = opened;
        for (uint32_t i = 0; i < opened; i++)
            settle(&connections[i], now);
    }
    run();
    wall = now_ns() - now;
}

static void leave_all(void)
{
    phase = LEAVING;
    active = 0;
    for (uint32_t i = 0; i < opened; i++)
        if (connections[i].state == QUIET) {
            active++;
            half_close(&connections[i]);
        }
    run();
}

static void stop_at(const char *name)
{
    char c = 0;
    printf("%s\n", name);
    fflush(stdout);
    while (!interrupted && read(STDIN_FILENO, &c, 1) == 1 && c != '\n')
        ;
}

static void report(const char *mode)
{
    printf("{\"mode\": \"%s\", \"connections\": %u, \"size\": %u, \"ops\": %llu, \"errors\": %llu, \"lost\": %llu, "
           "\"lost_bytes\": %llu, \"corrupt\": %llu, \"surplus_bytes\": %llu, \"ended_by_fin\": %llu, \"ended_by_reset\": %llu, "
           "\"farewell_bytes\": %llu, \"wall_s\": %.6f, ",
           mode, options.connections, options.size, (unsigned long long)operations, (unsigned long long)errors,
           (unsigned long long)lost, (unsigned long long)lost_bytes, (unsigned long long)corrupt,
           (unsigned long long)surplus_bytes, (unsigned long long)ended_by_fin, (unsigned long long)ended_by_reset,
           (unsigned long long)farewell_bytes, (double)wall / SECOND);
    if (options.histogram) { /* the upper end of each step in microseconds, and how many operations ended in it */
        const char *comma = "";
        printf("\"histogram_us\": [");
        for (uint32_t i = 0; i < sizeof histogram / sizeof *histogram; i++)
            if (histogram[i])
                printf("%s[%.3f, %u]", comma, bucket_end_us(i), histogram[i]), comma = ", ";
        printf("], ");
    }
    printf("\"latency_us\": {\"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"p999\": %.1f, \"max\": %.1f}, \"first_error\": ",
           percentile_us(0.5), percentile_us(0.9), percentile_us(0.99), percentile_us(0.999), percentile_us(1));
    printf(first_error[0] ? "\"%s\"}\n" : "null}\n", first_error);
    fflush(stdout);
    if (errors)
        die(1, "%llu errors, %llu operations lost, %llu corrupt; first: %s", (unsigned long long)errors,
            (unsigned long long)lost, (unsigned long long)corrupt, first_error);
}

/* ---- the command line ---- */

static const char usage[] =
    "usage: load echo|connect|refuse|idle --port P [options]\n"
    "  --host A          server's IPv4 address (127.0.0.1)\n"
    "  --connections C   at the same time (64)\n"
    "  --size S          bytes in a message (64)\n"
    "  --operations N    how many to measure, over all connections; or\n"
    "  --seconds T       how long to measure\n"
    "  --warmup N        operations before that (1000)\n"
    "  --rate R          echo only: begin R operations a second instead of as fast as they come back\n"
    "  --sources K       source addresses from 127.0.0.1 on, 1 leaves the choice to the kernel (64)\n"
    "  --timeout T       seconds without any progress after which what is missing is lost (10)\n"
    "  --step            stop at \"ready\" and \"measured\" until stdin gives a line or ends\n"
    "  --reset           connect only: close with a reset\n"
    "  --histogram       report every latency, so that the reports of several clients can be added\n"
    "  --spin            never sleep, so that the server pays for no wake-up; only with a CPU to itself\n";

static double number(const char *name, const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= least && value <= most))
        die(2, "--%s takes a number from %.15g to %.15g, not %s", name, least, most, text);
    return value;
}

static const char *parse(int argc, char **argv)
{
    static const char *const modes[] = {"echo", "connect", "refuse", "idle"};
    static const struct option names[] = {
        {"host", 1, 0, 'h'},    {"port", 1, 0, 'p'},    {"connections", 1, 0, 'c'}, {"size", 1, 0, 's'},  {"operations", 1, 0, 'n'},
        {"seconds", 1, 0, 't'}, {"warmup", 1, 0, 'w'},  {"rate", 1, 0, 'r'},        {"sources", 1, 0, 'k'}, {"timeout", 1, 0, 'o'},
        {"step", 0, 0, 'x'},    {"reset", 0, 0, 'z'},   {"spin", 0, 0, 'y'},     {"histogram", 0, 0, 'g'},
        {0, 0, 0, 0}};
    const char *host = "127.0.0.1";
    uint32_t mode = 0;
    int letter, index = 0;
    if (argc < 2)
        die(2, "say a mode\n%s", usage);
    while (mode < 4 && strcmp(argv[1], modes[mode]) != 0)
        mode++;
    if (mode == 4)
        die(2, "%s is no mode\n%s", argv[1], usage);
    options.mode = (enum mode)mode;
    while ((letter = getopt_long(argc - 1, argv + 1, "", names, &index)) != -1) {
        const char *name = names[index].name;
        switch (letter) {
        case 'h': host = optarg; break;
        case 'p': options.server.sin_port = htons((uint16_t)number(name, optarg, 1, 65535)); break;
        case 'c': options.connections = (uint32_t)number(name, optarg, 1, 10e6); break;
        case 's': options.size = (uint32_t)number(name, optarg, 1, MAX_SIZE); break;
        case 'n': options.operations = (uint64_t)number(name, optarg, 1, 1e12); break;
        case 't': options.duration = (uint64_t)(number(name, optarg, 0.001, 86400) * SECOND); break;
        case 'w': options.warmup = (uint64_t)number(name, optarg, 0, 1e9); break;
        case 'r': options.rate = (uint32_t)number(name, optarg, 1, 10e6); break;
        case 'k': options.sources = (uint32_t)number(name, optarg, 1, 60000); break;
        case 'o': options.timeout = (uint64_t)(number(name, optarg, 0.001, 3600) * SECOND); break;
        case 'x': options.step = true; break;
        case 'z': options.reset = true; break;
        case 'y': options.spin = true; break;
        case 'g': options.histogram = true; break;
        default: die(2, "%s", usage);
        }
    }
    options.server.sin_family = AF_INET;
    if (inet_pton(AF_INET, host, &options.server.sin_addr) != 1)
        die(2, "--host takes an IPv4 address, not %s", host);
    if (!options.server.sin_port || optind < argc - 1)
        die(2, "%s\n%s", options.server.sin_port ? "options only, after the mode" : "--port is missing", usage);
    if (options.mode != IDLE && !options.operations == !options.duration)
        die(2, "give one of --operations and --seconds");
    if ((options.rate && options.mode != ECHO) || (options.reset && options.mode != CONNECT))
        die(2, "--rate is for echo, --reset for connect");
    return modes[mode];
}

static void prepare(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (options.connections + 16ull > limit.rlim_cur)
        die(2, "%u connections need more than the %llu descriptors allowed here (ulimit -n)", options.connections,
            (unsigned long long)limit.rlim_cur);
    connections = calloc(options.connections, sizeof *connections);
    table = malloc(WINDOWS + (size_t)options.size);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!connections || !table || epoll_fd < 0)
        die(1, "cannot get memory or an epoll descriptor");
    for (uint32_t i = 0; i < options.connections; i++)
        connections[i].fd = -1;
    uint64_t random = 0x9e3779b97f4a7c15ull; /* xorshift64: the same bytes in every run */
    for (size_t i = 0; i < WINDOWS + (size_t)options.size; i++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        table[i] = (unsigned char)(random >> 32);
    }
    next_source = (uint32_t)getpid(); /* runs that follow each other begin at different addresses */
}

static void interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

int main(int argc, char **argv)
{
    const char *mode = parse(argc, argv);
    bool keeps = options.mode == ECHO || options.mode == IDLE;
    prepare();
    if (options.mode == IDLE) {
        struct sigaction action = {.sa_handler = interrupt}; /* no SA_RESTART: read() must end */
        sigaction(SIGTERM, &action, NULL);
        sigaction(SIGINT, &action, NULL);
    }
    if (keeps)
        open_all();
    if (options.mode != IDLE && options.warmup)
        work(options.warmup, 0);
    if (options.step || options.mode == IDLE)
        stop_at("ready");
    ended_by_fin = ended_by_reset = farewell_bytes = 0;
    if (options.mode == IDLE)
        options.operations = opened, options.duration = 0;
    work(options.operations, options.duration);
    if (options.step && options.mode != IDLE)
        stop_at("measured");
    if (keeps)
        leave_all();
    report(mode);
    return 0;
}
