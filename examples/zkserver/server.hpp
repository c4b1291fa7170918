// The event loop: one epoll, one thread. A turn takes what all clients have sent, polls the replica
// once, so that all of it goes to the disk together, and sends each client its answers in one
// piece.
#pragma once

#include "admin.hpp"
#include "peers.hpp"

#include <sys/signalfd.h>

namespace zkserver {

class Server {
public:
    static constexpr std::size_t chunk_bytes = 64 * 1024;  // of one client in one turn

    Server(Service& service, Poller& poller, Peers* peers)
        : service_(service), poller_(poller), peers_(peers), admin_(service, poller),
          chunk_(chunk_bytes, '\0') {}

    // RETURNS "", or what is wrong.
    std::string open(const std::string& host, int port) {
        const std::string error = listen_on(host, port, listener_);
        if (error.empty()) poller_.add(listener_.get(), EPOLLIN, {Tag::Kind::listener, 0});
        return error;
    }
    // And the same of the HTTP server, if there is to be one.
    std::string open_admin(const std::string& host, int port) { return admin_.open(host, port); }
    int admin_port() const { return admin_.port(); }
    int port() const { return port_of(listener_); }
    // Turns until it is told to end, or the replica has failed. One that leads gives its place to
    // another one first, which takes half a second at the most; told again, it ends at once.
    void run() {
        while (!has_ended()) turn();
    }

    void turn() {
        service_.now = read_clock();
        coord::Time wake = (std::min)(service_.replica.next_deadline(), tick_at_);
        if (peers_ != nullptr) {
            const std::string error = peers_->follow(service_.replica);
            if (!error.empty()) service_.log(error);
            wake = (std::min)(wake, peers_->tend(service_.now));
        }
        if (is_busy_) wake = service_.now;
        const std::int64_t wait_ns = (std::max)(wake - service_.now, coord::Duration{}).ns;
        const auto wait_ms = static_cast<int>((std::min)(wait_ns + 999999, 1000000000L) / 1000000);
        poller_.wait(wait_ms, [this](Tag tag, std::uint32_t events) { on_ready(tag, events); });
        service_.now = read_clock();
        service_.wall_ms = read_wall_ms();
        service_.replica.poll(service_.now, service_.wall_ms);
        if (peers_ != nullptr) peers_->flush();
        if (service_.now >= tick_at_) {
            service_.tick(service_.now);
            admin_.tick();
            const int every_ms = (std::max)(10, (std::min)(service_.config.tick_ms / 4, 250));
            tick_at_ = service_.now + coord::milliseconds(every_ms);
        }
        is_busy_ = settle();
    }

private:
    struct Socket {
        Fd fd;
        std::uint32_t generation = 0;
        std::uint32_t events = 0;
    };

    void on_ready(Tag tag, std::uint32_t events) {
        switch (tag.kind) {
            case Tag::Kind::listener: return accept_all();
            case Tag::Kind::wake: {
                std::uint64_t count = 0;
                if (::read(static_cast<int>(tag.index), &count, sizeof count) < 0) return;
                return;
            }
            case Tag::Kind::stop: return on_signal(static_cast<int>(tag.index));
            case Tag::Kind::client: return on_client(tag.index, events);
            case Tag::Kind::admin:
            case Tag::Kind::visitor: return admin_.on_ready(tag, events);
            case Tag::Kind::peers:
            case Tag::Kind::dialled:
            case Tag::Kind::accepted: break;
        }
        if (peers_ != nullptr) peers_->on_ready(tag, events, service_.replica);
    }

    void on_signal(int fd) {
        signalfd_siginfo told;
        if (::read(fd, &told, sizeof told) < 0) return;
        is_told_twice_ = is_told_to_end_;
        is_told_to_end_ = true;
        const bool hands_over = service_.replica.hand_over() == coord::Errc::ok;
        if (hands_over && service_.log) service_.log("hands over before it stops");
    }

    bool has_ended() const {
        const coord::ReplicaStatus status = service_.replica.status();
        if (status.role == coord::Role::failed || is_told_twice_) return true;
        return is_told_to_end_ && status.successor == coord::PeerId{};
    }

    void accept_all() {
        for (int i = 0; i < 256; i++) {
            SocketAddress from;
            from.size = sizeof from.storage;
            Fd fd(::accept4(listener_.get(), from.get(), &from.size,
                            SOCK_NONBLOCK | SOCK_CLOEXEC));
            if (!fd && (errno == EMFILE || errno == ENFILE)) refuse_one();
            if (!fd) return;
            const std::string host = from.host();
            const auto most = static_cast<std::size_t>(service_.config.connections_per_address);
            if (most != 0 && service_.connections_from(host) >= most) {
                refused("too many connections from " + host);
                continue;
            }
            set_no_delay(fd.get());
            Connection& connection = service_.open(host, from.port());
            const Ticket ticket = connection.ticket();
            if (sockets_.size() <= ticket.index) sockets_.resize(ticket.index + 1);
            Socket& socket = sockets_[ticket.index];
            socket = Socket{std::move(fd), ticket.generation, EPOLLIN};
            poller_.add(socket.fd.get(), EPOLLIN, {Tag::Kind::client, ticket.index});
        }
    }

    // There is no file descriptor left. One is kept for this: else who waits to be accepted would
    // wake the loop for ever.
    void refuse_one() {
        spare_.close();
        Fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)).close();
        spare_ = Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
        refused("no file descriptors left: see ulimit -n");
    }
    void refused(const std::string& why) {
        service_.refused_connections += 1;
        if (service_.now < complain_at_ || !service_.log) return;
        service_.log(why);
        complain_at_ = service_.now + coord::seconds(1);
    }

    void on_client(std::uint32_t index, std::uint32_t events) {
        Socket& socket = sockets_[index];
        Connection* const connection = service_.find(index, socket.generation);
        if (connection == nullptr || !socket.fd) return;
        service_.touch(*connection);
        if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) return;
        if (!connection->wants_input() && (events & (EPOLLHUP | EPOLLERR)) == 0) return;
        const ssize_t size = ::recv(socket.fd.get(), &chunk_[0], chunk_.size(), 0);
        if (size > 0) {
            connection->receive(BytesView(chunk_).substr(0, static_cast<std::size_t>(size)));
        } else if (size == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
            connection->shut();
        }
    }

    // Sends what there is, and lets those go on that have waited for room. RETURNS whether there is
    // more to do at once.
    bool settle() {
        std::vector<Ticket> touched = service_.take_touched();
        for (const Ticket& ticket : touched) {
            Connection* const connection = ticket.find();
            if (connection == nullptr) continue;
            service_.untouch(*connection);
            flush(*connection);
            connection->go_on();
            if (connection->is_over()) {
                close(*connection);
            } else {
                set_interest(*connection);
            }
        }
        return service_.has_touched();
    }

    void flush(Connection& connection) {
        Socket& socket = sockets_[connection.ticket().index];
        while (!connection.output().empty()) {
            const BytesView out = connection.output();
            const ssize_t sent = ::send(socket.fd.get(), out.data(), out.size(), MSG_NOSIGNAL);
            if (sent < 0 && errno == EINTR) continue;
            if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
            if (sent < 0) return connection.shut();
            connection.sent(static_cast<std::size_t>(sent));
        }
    }

    void set_interest(const Connection& connection) {
        Socket& socket = sockets_[connection.ticket().index];
        std::uint32_t events = 0;
        if (connection.wants_input()) events |= EPOLLIN;
        if (!connection.output().empty()) events |= EPOLLOUT;
        if (events == socket.events) return;
        socket.events = events;
        poller_.change(socket.fd.get(), events,
                       {Tag::Kind::client, connection.ticket().index});
    }

    // What it has sent and nobody has read is read first: else the kernel resets the connection,
    // and the last answer may be lost on its way.
    void close(Connection& connection) {
        Socket& socket = sockets_[connection.ticket().index];
        for (int i = 0; i < 16; i++) {
            if (::recv(socket.fd.get(), &chunk_[0], chunk_.size(), 0) <= 0) break;
        }
        socket.fd.close();
        service_.close(connection);
    }

    Service& service_;
    Poller& poller_;
    Peers* peers_;
    Admin admin_;
    Fd listener_;
    std::vector<Socket> sockets_;  // by the connections' indices
    std::string chunk_;
    coord::Time tick_at_;
    coord::Time complain_at_;
    Fd spare_{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
    bool is_told_to_end_ = false;
    bool is_told_twice_ = false;
    bool is_busy_ = false;
};

}  // namespace zkserver
