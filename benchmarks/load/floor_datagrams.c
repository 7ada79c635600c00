/* The floor of a UDP echo server on this kernel: one thread, one blocking socket, one datagram at a time.
 * It prints its port and runs until it is killed. */
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

static char data[65536];

int main(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) < 0) {
        perror("floor_datagrams");
        return 1;
    }
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        length = sizeof address;
        ssize_t got = recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)&address, &length);
        if (got >= 0)
            sendto(fd, data, (size_t)got, 0, (struct sockaddr *)&address, length);
    }
}
