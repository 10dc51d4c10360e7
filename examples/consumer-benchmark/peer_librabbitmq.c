/* Consume with librabbitmq, the nearest thing to the limit of the machine.

   cc -O2 -o peer_librabbitmq peer_librabbitmq.c -lrabbitmq
   ./peer_librabbitmq bench 1000 --prefetch 500 --ack-every 1 --seen FILE */

#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static void check(amqp_rpc_reply_t reply, const char *what) {
    if (reply.reply_type == AMQP_RESPONSE_NORMAL) return;
    fprintf(stderr, "Failed: %s\n", what);
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    const char *seen_name = "/dev/null", *url = getenv("AMQP_URL");
    int prefetch = 500, every = 1, i;
    long done, count;
    double first = 0;
    char copy[1000], vhost[1000] = "/";

    if (argc < 3) return 2;
    count = atol(argv[2]);
    for (i = 3; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--prefetch")) prefetch = atoi(argv[i + 1]);
        if (!strcmp(argv[i], "--ack-every")) every = atoi(argv[i + 1]);
        if (!strcmp(argv[i], "--seen")) seen_name = argv[i + 1];
    }
    int seen = open(seen_name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    struct amqp_connection_info to;
    snprintf(copy, sizeof copy, "%s", url ? url : "amqp://guest:guest@localhost/");
    if (amqp_parse_url(copy, &to)) return 2;
    if (to.vhost && *to.vhost) snprintf(vhost, sizeof vhost, "%s", to.vhost);
    amqp_connection_state_t it = amqp_new_connection();
    if (amqp_socket_open(amqp_tcp_socket_new(it), to.host, to.port)) {
        fprintf(stderr, "Failed at %s:%d: nobody answers\n", to.host, to.port);
        return 1;
    }
    check(amqp_login(it, vhost, 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, to.user,
                     to.password), "login");
    amqp_channel_open(it, 1);
    check(amqp_get_rpc_reply(it), "channel");
    amqp_basic_qos(it, 1, 0, prefetch, 0);
    amqp_basic_consume(it, 1, amqp_cstring_bytes(argv[1]),
                       amqp_cstring_bytes("c"), 0, !every, 0, amqp_empty_table);
    check(amqp_get_rpc_reply(it), "consume");

    for (done = 0; done < count;) {
        amqp_envelope_t message;
        amqp_maybe_release_buffers(it);
        check(amqp_consume_message(it, &message, NULL, 0), "message");
        if (!done) first = now();
        if (write(seen, message.message.body.bytes, 8) != 8) return 1;
        done++;
        if (every && (done % every == 0 || done == count))
            amqp_basic_ack(it, 1, message.delivery_tag, every > 1);
        amqp_destroy_envelope(&message);
    }
    amqp_basic_cancel(it, 1, amqp_cstring_bytes("c"));
    check(amqp_get_rpc_reply(it), "cancel");  /* the broker has had all acks */
    printf("{\"first\": %.6f, \"last\": %.6f}\n", first, now());
    amqp_connection_close(it, AMQP_REPLY_SUCCESS);
    return 0;
}
