/* A load client for UDP servers on loopback: one thread, one epoll, one connected socket for each peer.
 *
 *   datagrams echo  --port P  peers that play ping-pong; an operation is one datagram out and the same one back
 *   datagrams flood --port P  datagrams at a steady --rate over all peers, and how many of them came back
 *
 * With --step, echo writes "ready" after the warm-up and "measured" after the measured part, and goes on when stdin
 * gives a line or ends. The result is one line of JSON on stdout. A datagram begins with its number. An answer that does
 * not come within --patience is counted as lost, and its peer goes on with the next number. An answer with another
 * number or length is counted as late or corrupt.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000ull
enum { MAX_SIZE = 65507, BATCH = 256 };

struct peer {
    int fd;
    uint64_t number, began;
};

static uint32_t peers_count = 64, size = 64;
static double seconds = 0.4, rate = 10000;
static uint64_t warmup = 2000, patience = 2 * SECOND;
static bool step, spin;
static struct peer *peers;
static uint64_t operations, lost, late, corrupt, sent, received, unsent;
static uint32_t histogram[64 * 32];
static unsigned char out[MAX_SIZE], in[65536];

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "datagrams: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint32_t bucket(uint64_t ns)
{
    if (ns < 32)
        return (uint32_t)ns;
    uint32_t shift = (uint32_t)(63 - __builtin_clzll(ns)) - 5;
    return (shift + 1) * 32 + (uint32_t)((ns >> shift) - 32);
}

static double percentile_us(double share)
{
    uint64_t wanted = (uint64_t)((double)operations * share), seen = 0;
    for (uint32_t i = 0; i < sizeof histogram / sizeof *histogram; i++) {
        seen += histogram[i];
        if (histogram[i] && seen > wanted)
            return (double)(i < 32 ? i + 1 : (uint64_t)(i % 32 + 33) << (i / 32 - 1)) / 1000;
    }
    return 0;
}

static bool put(struct peer *p, uint64_t number)
{
    memcpy(out, &number, sizeof number);
    if (send(p->fd, out, size, 0) == (ssize_t)size)
        return true;
    unsent++;
    return false;
}

static void next(struct peer *p, uint64_t now)
{
    p->number++;
    p->began = now;
    put(p, p->number);
    sent++;
}

static void stop_at(const char *point)
{
    if (!step)
        return;
    puts(point);
    fflush(stdout);
    while (getchar() != '\n' && !feof(stdin))
        ;
}

static void echo(int epoll_fd)
{
    struct epoll_event events[BATCH];
    uint64_t end = 0, now = now_ns(), looked = now;
    bool measuring = false;
    for (uint32_t i = 0; i < peers_count; i++)
        next(&peers[i], now);
    for (;;) {
        int count = epoll_wait(epoll_fd, events, BATCH, spin ? 0 : 50);
        now = now_ns();
        for (int i = 0; i < count; i++) {
            struct peer *p = &peers[events[i].data.u32];
            for (;;) {
                ssize_t got = recv(p->fd, in, sizeof in, MSG_DONTWAIT);
                if (got < 0)
                    break;
                uint64_t number;
                memcpy(&number, in, sizeof number);
                if ((uint32_t)got != size || number > p->number) {
                    corrupt++;
                } else if (number < p->number) {
                    late++;
                } else {
                    operations++;
                    histogram[bucket(now - p->began)]++;
                    next(p, now_ns());
                }
            }
        }
        if (now - looked > patience / 4) {
            looked = now;
            for (uint32_t i = 0; i < peers_count; i++)
                if (now > peers[i].began && now - peers[i].began > patience) {
                    lost++;
                    next(&peers[i], now);
                }
        }
        if (!measuring && operations >= warmup) {
            measuring = true;
            stop_at("ready");
            operations = lost = late = corrupt = 0;
            memset(histogram, 0, sizeof histogram);
            now = now_ns();
            for (uint32_t i = 0; i < peers_count; i++)
                peers[i].began = now;
            end = now + (uint64_t)(seconds * 1e9);
        } else if (measuring && now >= end) {
            stop_at("measured");
            return;
        }
    }
}

static void take_all(void)
{
    for (uint32_t i = 0; i < peers_count; i++)
        while (recv(peers[i].fd, in, sizeof in, MSG_DONTWAIT) >= 0)
            received++;
}

static void flood(void)
{
    uint64_t begin = now_ns(), end = begin + (uint64_t)(seconds * 1e9), now;
    stop_at("ready");
    begin = now_ns();
    end = begin + (uint64_t)(seconds * 1e9);
    while ((now = now_ns()) < end) {
        uint64_t due = (uint64_t)((double)(now - begin) * rate / 1e9);
        for (uint32_t burst = 0; sent < due && burst < 64; burst++) {
            put(&peers[sent % peers_count], sent);
            sent++;
        }
        take_all();
    }
    uint64_t quiet = now_ns() + SECOND / 2;
    while (now_ns() < quiet) {
        take_all();
        usleep(1000);
    }
    stop_at("measured");
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {
        {"port", 1, 0, 'p'}, {"peers", 1, 0, 'n'}, {"size", 1, 0, 's'}, {"seconds", 1, 0, 't'}, {"rate", 1, 0, 'r'},
        {"warmup", 1, 0, 'w'}, {"step", 0, 0, 'S'}, {"spin", 0, 0, 'P'}, {0, 0, 0, 0}};
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int c;
    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1)
        switch (c) {
        case 'p': server.sin_port = htons((uint16_t)atoi(optarg)); break;
        case 'n': peers_count = (uint32_t)atoi(optarg); break;
        case 's': size = (uint32_t)atoi(optarg); break;
        case 't': seconds = atof(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 'w': warmup = (uint64_t)atoll(optarg); break;
        case 'S': step = true; break;
        case 'P': spin = true; break;
        default: return 2;
        }
    if (optind != argc - 1 || !server.sin_port || !peers_count || size < 8 || size > MAX_SIZE) {
        fputs("usage: datagrams echo|flood --port P [--peers N] [--size 8..65507] [--seconds S] [--rate R]\n", stderr);
        return 2;
    }
    int epoll_fd = epoll_create1(0);
    peers = calloc(peers_count, sizeof *peers);
    for (uint32_t i = 0; i < peers_count; i++) {
        int buffer = 1 << 20;
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        peers[i].fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        setsockopt(peers[i].fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
        if (peers[i].fd < 0 || connect(peers[i].fd, (struct sockaddr *)&server, sizeof server) < 0 ||
            epoll_ctl(epoll_fd, EPOLL_CTL_ADD, peers[i].fd, &event) < 0)
            die("socket");
    }
    if (strcmp(argv[optind], "flood") == 0)
        flood();
    else
        echo(epoll_fd);
    printf("{\"ops\": %llu, \"lost\": %llu, \"late\": %llu, \"corrupt\": %llu, \"sent\": %llu, \"received\": %llu, "
           "\"unsent\": %llu, \"latency_us\": {\"p50\": %.1f, \"p99\": %.1f}}\n",
           (unsigned long long)operations, (unsigned long long)lost, (unsigned long long)late, (unsigned long long)corrupt,
           (unsigned long long)sent, (unsigned long long)received, (unsigned long long)unsent, percentile_us(0.5),
           percentile_us(0.99));
    return corrupt ? 1 : 0;
}
