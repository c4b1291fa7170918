// A transport over TCP, to be copied: POSIX sockets, one thread, nothing that blocks but poll(2).
//
//     TcpTransport transport{coord::PeerId{1}};
//     std::string error = transport.listen("127.0.0.1", 7001);        // "" = it worked
//     error = transport.add_peer(coord::PeerId{2}, "127.0.0.1", 7002);
//     coord::Replica replica{options, storage, transport};
//     while (running) transport.run_once(replica, coord::milliseconds(100));
//
// Each replica dials every other one and sends on the connection that it dialled; it receives on
// those that it accepted. So between two replicas there are two connections, each used one way,
// and nobody has to agree on whose connection is kept. A connection carries frames: u32 length,
// big-endian, and the bytes. The first frame is the hello: who dials, and whom it wants.
//
// coord asks little of a transport: whatever is lost is sent again. So a queue that is full drops
// what comes, a connection that breaks drops what it held, and no frame is ever kept for later.
// What TCP adds is the news of a crash: the kernel of a process that died closes its connections,
// and Replica::forget passes that on in milliseconds, where silence would take half a second.
//
// It does not authenticate or encrypt: whoever can connect can say that it is replica 2. Listen on
// the loopback, or on a network where only the replicas are.
#pragma once

#include "coord.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

// The clock that a replica is polled with. It has to run on while the machine is suspended, or a
// lock's holder would wake up and believe that no time has passed: Linux calls that BOOTTIME.
inline coord::Time monotonic_now() {
    timespec now{};
#ifdef CLOCK_BOOTTIME
    clock_gettime(CLOCK_BOOTTIME, &now);
#else
    clock_gettime(CLOCK_MONOTONIC, &now);
#endif
    return coord::Time{} + coord::seconds(now.tv_sec) + coord::nanoseconds(now.tv_nsec);
}

inline std::int64_t wall_ms_now() {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1000000;
}

struct TcpCounters {
    std::uint64_t frames_sent = 0;
    std::uint64_t frames_received = 0;
    std::uint64_t frames_dropped = 0;  // not connected, or the queue was full
    std::uint64_t losses = 0;          // peers reported to the replica as gone
};

class TcpTransport final : public coord::Transport {
public:
    static constexpr std::size_t frame_bytes_max = 2 * 1024 * 1024;
    static constexpr std::size_t queue_bytes_max = 8 * 1024 * 1024;  // for each peer
    static constexpr std::size_t read_bytes_max = 1024 * 1024;       // of each peer between polls

    explicit TcpTransport(coord::PeerId self) : self_(self), chunk_(64 * 1024, '\0') {}
    ~TcpTransport() override {
        close_fd(listener_);
        for (Peer& peer : peers_) close_fd(peer.fd);
        for (Incoming& incoming : incoming_) close_fd(incoming.fd);
    }
    TcpTransport(const TcpTransport&) = delete;
    TcpTransport& operator=(const TcpTransport&) = delete;

    // Addresses are numbers: the answer of a name server would have to be waited for. Port 0 takes
    // a free one; port() tells. RETURNS "", or what is wrong.
    std::string listen(const std::string& host = "127.0.0.1", std::uint16_t port = 0) {
        sockaddr_in address{};
        if (!to_address(host, port, address)) return "not an IPv4 address: " + host;
        close_fd(listener_);
        listener_ = ::socket(AF_INET, SOCK_STREAM, 0);
        int on = 1;
        setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
            ::listen(listener_, 64) != 0 || !prepare(listener_)) {
            std::string error = "port " + std::to_string(port) + ": " + std::strerror(errno);
            close_fd(listener_);
            return error;
        }
        return "";
    }
    // The same with a socket that listens already: one that a parent process has opened.
    void listen_on(int fd) {
        close_fd(listener_);
        listener_ = prepare(fd) ? fd : -1;
    }
    std::uint16_t port() const {
        sockaddr_in address{};
        socklen_t size = sizeof address;
        getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
        return ntohs(address.sin_port);
    }
    // Gives the listening socket away: to a child process, say, which then calls listen_on.
    int release_listener() { return std::exchange(listener_, -1); }

    std::string add_peer(coord::PeerId id, const std::string& host, std::uint16_t port) {
        Peer peer;
        peer.id = id;
        if (!to_address(host, port, peer.address)) return "not an IPv4 address: " + host;
        peers_.push_back(std::move(peer));
        return "";
    }

    // One turn of the event loop: waits for a socket, for the replica's next deadline, or for
    // max_wait; takes what has come; polls the replica; sends what it said, all of it to one peer
    // at once. With a wake_fd it waits for that as well. RETURNS whether wake_fd can be read.
    bool run_once(coord::Replica& replica, coord::Duration max_wait, int wake_fd = -1) {
        coord::Time now = monotonic_now();
        dial_whoever_is_due(now);
        wait(time_to_wait(now, replica, max_wait), wake_fd);
        for (Peer& peer : peers_) {
            if (peer.fd >= 0) look_at_outgoing(peer);
        }
        for (Incoming& incoming : incoming_) {
            if (incoming.ready && !read_from(incoming, replica)) end(incoming, replica);
        }
        if (accept_ready_) accept_all();
        forget_closed();
        replica.poll(monotonic_now(), wall_ms_now());
        for (Peer& peer : peers_) {
            if (peer.fd >= 0 && !peer.connecting) flush(peer);
        }
        return wake_ready_;
    }

    void send(coord::PeerId to, coord::BytesView bytes) override {
        Peer* peer = find(to);
        if (peer == nullptr || peer->fd < 0 ||
            peer->out.size() - peer->out_sent + bytes.size() > queue_bytes_max) {
            counters_.frames_dropped += 1;
            return;
        }
        coord::Writer{peer->out}.bytes(bytes);
        counters_.frames_sent += 1;
    }
    std::size_t message_bytes_max() const override { return frame_bytes_max; }
    const TcpCounters& counters() const { return counters_; }

private:
    static constexpr std::uint64_t hello_magic = 0x636f6f7264746370;  // "coordtcp"
    static constexpr std::size_t hello_bytes = 16;                    // magic, from, to
    static constexpr std::size_t strangers_max = 16;                  // accepted, no hello yet

    struct Peer {  // where to, and the connection that we dialled
        coord::PeerId id;
        sockaddr_in address{};
        int fd = -1;
        bool connecting = false;
        short ready = 0;          // what poll(2) said of it
        coord::Time dial_at;      // the next attempt, if there is no connection then
        coord::Time give_up_at;   // while connecting
        coord::Duration backoff = coord::milliseconds(10);
        coord::Bytes out;         // frames; the first out_sent bytes have gone
        std::size_t out_sent = 0;
    };
    struct Incoming {  // a connection that was accepted
        int fd = -1;
        bool ready = false;
        coord::PeerId from;  // nobody before the hello
        coord::Bytes in;
    };

    // ---------------------------------------------------------------------------------- dialling

    void dial_whoever_is_due(coord::Time now) {
        for (Peer& peer : peers_) {
            if (peer.connecting && now >= peer.give_up_at) hang_up(peer);
            if (peer.fd < 0 && now >= peer.dial_at) dial(peer, now);
        }
    }

    void dial(Peer& peer, coord::Time now) {
        peer.dial_at = now + peer.backoff;  // if it fails
        peer.backoff = (std::min)(peer.backoff * 2, coord::milliseconds(500));
        peer.fd = ::socket(AF_INET, SOCK_STREAM, 0);
        if (peer.fd < 0) return;
        if (!prepare(peer.fd)) return hang_up(peer);
        int on = 1;
        setsockopt(peer.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
#ifdef TCP_USER_TIMEOUT  // a machine that lost its power answers nothing: do not wait for minutes
        unsigned int timeout_ms = 3000;
        setsockopt(peer.fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
#endif
        auto* address = reinterpret_cast<const sockaddr*>(&peer.address);
        if (::connect(peer.fd, address, sizeof peer.address) != 0) {
            if (errno != EINPROGRESS) return hang_up(peer);
            peer.connecting = true;
            peer.give_up_at = now + coord::seconds(1);
        }
        coord::Writer out{peer.out};  // the hello, before all else
        out.u32(hello_bytes), out.u64(hello_magic), out.u32(self_.value), out.u32(peer.id.value);
    }

    void look_at_outgoing(Peer& peer) {
        if (peer.ready == 0) return;
        if (peer.connecting) {
            int error = 0;
            socklen_t size = sizeof error;
            getsockopt(peer.fd, SOL_SOCKET, SO_ERROR, &error, &size);
            if (error != 0) return hang_up(peer);
            peer.connecting = false;
        } else if ((peer.ready & (POLLIN | POLLHUP | POLLERR)) != 0) {
            // Nobody answers on this connection. So it has ended, or, as happens on a loopback
            // when nobody listens, it has connected to itself and we read our own hello.
            hang_up(peer);
        }
    }

    void flush(Peer& peer) {
        while (peer.out_sent < peer.out.size()) {
            ssize_t sent = ::send(peer.fd, peer.out.data() + peer.out_sent,
                                  peer.out.size() - peer.out_sent, send_flags);
            if (sent < 0 && errno == EINTR) continue;
            if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
            if (sent < 0) return hang_up(peer);
            peer.out_sent += static_cast<std::size_t>(sent);
        }
        if (peer.out_sent == peer.out.size() || peer.out_sent > queue_bytes_max / 4) {
            peer.out.erase(0, peer.out_sent);
            peer.out_sent = 0;
        }
    }

    void hang_up(Peer& peer) {
        close_fd(peer.fd);
        peer.connecting = false;
        peer.out.clear();
        peer.out_sent = 0;
    }

    // --------------------------------------------------------------------------------- receiving

    void accept_all() {
        for (;;) {
            int fd = ::accept(listener_, nullptr, nullptr);
            if (fd < 0) return;
            prepare(fd);
            incoming_.emplace_back();
            incoming_.back().fd = fd;
            // Those who never say who they are go first, the oldest before the others.
            auto is_stranger = [](const Incoming& i) { return i.fd >= 0 && i.from.value == 0; };
            auto count = std::count_if(incoming_.begin(), incoming_.end(), is_stranger);
            if (static_cast<std::size_t>(count) > strangers_max) {
                close_fd(std::find_if(incoming_.begin(), incoming_.end(), is_stranger)->fd);
            }
        }
    }

    // RETURNS false when the connection has ended, or has to.
    bool read_from(Incoming& incoming, coord::Replica& replica) {
        for (std::size_t total = 0; total < read_bytes_max;) {
            ssize_t size = ::recv(incoming.fd, &chunk_[0], chunk_.size(), 0);
            if (size < 0 && errno == EINTR) continue;
            if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return true;
            if (size <= 0) return false;
            incoming.in.append(chunk_.data(), static_cast<std::size_t>(size));
            if (!take_frames(incoming, replica)) return false;
            total += static_cast<std::size_t>(size);
        }
        return true;
    }

    bool take_frames(Incoming& incoming, coord::Replica& replica) {
        coord::BytesView rest = incoming.in;
        while (rest.size() >= 4) {
            const std::size_t size = coord::Reader{rest}.u32();
            if (size > (incoming.from.value == 0 ? hello_bytes : frame_bytes_max)) return false;
            if (rest.size() < 4 + size) break;
            coord::BytesView frame = rest.substr(4, size);
            if (incoming.from.value != 0) {
                replica.receive(incoming.from, frame);
                counters_.frames_received += 1;
            } else if (!take_hello(incoming, frame)) {
                return false;
            }
            rest.remove_prefix(4 + size);
        }
        incoming.in.erase(0, incoming.in.size() - rest.size());
        return true;
    }

    bool take_hello(Incoming& incoming, coord::BytesView frame) {
        coord::Reader in{frame};
        const bool is_ours = in.u64() == hello_magic;
        const coord::PeerId from{in.u32()};
        const coord::PeerId to{in.u32()};
        Peer* peer = find(from);
        if (!in.done() || !is_ours || to != self_ || peer == nullptr) return false;
        for (Incoming& older : incoming_) {  // it has dialled again: the one before is dead
            if (older.from == from) close_fd(older.fd);
        }
        incoming.from = from;
        peer->backoff = coord::milliseconds(10);  // whoever dials us is there: dial it at once
        if (peer->fd < 0) peer->dial_at = coord::Time{};
        return true;
    }

    // The end of the connection on which a peer was heard is the news of its crash.
    void end(Incoming& incoming, coord::Replica& replica) {
        if (incoming.fd >= 0 && incoming.from.value != 0) {
            counters_.losses += 1;
            replica.forget(incoming.from);
        }
        close_fd(incoming.fd);
    }

    void forget_closed() {
        auto is_closed = [](const Incoming& incoming) { return incoming.fd < 0; };
        incoming_.erase(std::remove_if(incoming_.begin(), incoming_.end(), is_closed),
                        incoming_.end());
    }

    // ----------------------------------------------------------------------------------- waiting

    coord::Duration time_to_wait(coord::Time now, const coord::Replica& replica,
                                 coord::Duration max_wait) const {
        const coord::Time latest = now + (std::min)(max_wait, coord::seconds(60));
        coord::Time wake = (std::min)(latest, replica.next_deadline());
        for (const Peer& peer : peers_) {
            if (peer.fd < 0) wake = (std::min)(wake, peer.dial_at);
            if (peer.connecting) wake = (std::min)(wake, peer.give_up_at);
        }
        return (std::max)(wake - now, coord::Duration{});
    }

    void wait(coord::Duration time, int wake_fd) {
        polled_.clear();
        polled_.push_back({listener_, POLLIN, 0});  // poll(2) passes over an fd of -1
        polled_.push_back({wake_fd, POLLIN, 0});
        for (const Peer& peer : peers_) {
            const bool writing = peer.connecting || peer.out_sent < peer.out.size();
            const int events = writing ? POLLIN | POLLOUT : POLLIN;
            polled_.push_back({peer.fd, static_cast<short>(events), 0});
        }
        for (const Incoming& incoming : incoming_) polled_.push_back({incoming.fd, POLLIN, 0});
        const int timeout_ms = static_cast<int>((time.ns + 999999) / 1000000);  // never too early
        if (::poll(polled_.data(), static_cast<nfds_t>(polled_.size()), timeout_ms) < 0) {
            for (pollfd& polled : polled_) polled.revents = 0;  // a signal came: nothing is ready
        }
        auto next = polled_.begin();
        accept_ready_ = next++->revents != 0;
        wake_ready_ = next++->revents != 0;
        for (Peer& peer : peers_) peer.ready = next++->revents;
        for (Incoming& incoming : incoming_) incoming.ready = next++->revents != 0;
    }

    // --------------------------------------------------------------------------------- the rest

#ifdef MSG_NOSIGNAL
    static constexpr int send_flags = MSG_NOSIGNAL;  // an error, not a SIGPIPE
#else
    static constexpr int send_flags = 0;
#endif

    static bool prepare(int fd) {
#ifdef SO_NOSIGPIPE
        int on = 1;
        setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
        return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0 &&
               fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
    }

    static bool to_address(const std::string& host, std::uint16_t port, sockaddr_in& address) {
        address.sin_family = AF_INET;
        address.sin_port = htons(port);
        return inet_pton(AF_INET, host.c_str(), &address.sin_addr) == 1;
    }
    static void close_fd(int& fd) {
        if (fd >= 0) ::close(fd);
        fd = -1;
    }
    Peer* find(coord::PeerId id) {
        for (Peer& peer : peers_) {
            if (peer.id == id) return &peer;
        }
        return nullptr;
    }

    const coord::PeerId self_;
    int listener_ = -1;
    std::vector<Peer> peers_;
    std::vector<Incoming> incoming_;  // the oldest first
    std::vector<pollfd> polled_;
    bool accept_ready_ = false;
    bool wake_ready_ = false;
    std::string chunk_;
    TcpCounters counters_;
};
