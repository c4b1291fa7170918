// The transport of an ensemble's replicas: TCP on the second port of each server.N. The third,
// which ZooKeeper votes on, is not used: votes go the same way as all else here.
//
// Each server dials every other one and sends on the connection that it dialled; it hears on those
// that it accepted. A connection carries frames: u32 length and the bytes; the first is the hello:
// who dials, whom it wants, and the port on which it listens itself. What finds no room, or no
// connection, is dropped: the replica says it again. Whoever can connect is believed, as in
// ZooKeeper without SASL, unless the replicas have keys: keep these ports among the servers.
//
// Where a server is say the ensemble's members, which a reconfig changes, and zoo.cfg. The members
// come first where reconfigEnabled is set, and zoo.cfg where it is not: so servers can be moved by
// files alone. Of one that is in neither, which observes and may join, its hello says it: it is
// dialled at the address that it has come from, as long as its connection is there. No more than
// 255 servers are known.
#pragma once

#include "members.hpp"
#include "sockets.hpp"

#include <deque>
#include <optional>

namespace zkserver {

class Peers final : public coord::Transport {
public:
    static constexpr std::size_t queue_bytes_max = 32 * 1024 * 1024;  // for each peer
    static constexpr std::size_t strangers_max = 16;  // accepted, that have not said who they are

    Peers(Poller& poller, coord::PeerId self, std::size_t frame_bytes)
        : poller_(poller), self_(self), frame_bytes_max_(frame_bytes),
          chunk_(64 * 1024, '\0') {}

    // Others dial the port; it listens there, or where something between them and it ends. RETURNS
    // "", or what is wrong.
    std::string open(const std::string& host, int port, int own_port) {
        const int at = own_port != 0 ? own_port : port;
        const std::string error = listen_on(host, at, listener_);
        if (error.empty()) poller_.add(listener_.get(), EPOLLIN, {Tag::Kind::peers, 0});
        port_ = static_cast<std::uint32_t>(port);
        return error;
    }
    std::string add(coord::PeerId id, const std::string& host, int port, bool is_fixed = false) {
        Peer& peer = find_or_add(id);
        peer.is_fixed = peer.is_fixed || is_fixed;
        if (peer.host == host && peer.port == port) return "";
        SocketAddress address;
        const std::string error = address.resolve(host, port);
        if (!error.empty()) return error;
        hang_up(peer);
        peer.address = address, peer.host = host, peer.port = port;
        peer.dial_at = coord::Time{}, peer.backoff = coord::milliseconds(20);
        return "";
    }
    // The members may be others. RETURNS "", or what is wrong with an address.
    std::string follow(const coord::Replica& replica) {
        if (followed_ && *followed_ == replica.members_version()) return "";
        followed_ = replica.members_version();
        std::string wrong;
        for (const coord::Member& member : replica.members()) {
            std::string host;
            int port = 0;
            const Peer* const known = find(member.id);
            const bool is_fixed = known != nullptr && known->is_fixed;
            if (member.id == self_ || is_fixed || !read_address(member, host, port)) continue;
            const std::string error = add(member.id, host, port);
            if (!error.empty()) wrong = "server." + std::to_string(member.id.value) + ": " + error;
        }
        return wrong;
    }

    void send(coord::PeerId to, coord::BytesView bytes) override {
        Peer* const peer = find(to);
        if (peer == nullptr || !peer->fd) return;
        if (peer->out.size() - peer->out_sent + bytes.size() > queue_bytes_max) return;
        coord::Writer(peer->out).bytes(bytes);
    }
    std::size_t message_bytes_max() const override { return frame_bytes_max_; }

    // Before it is waited: dials whoever is due. RETURNS when it wants to be called again.
    coord::Time tend(coord::Time now) {
        coord::Time next = now + coord::seconds(1);
        for (std::uint32_t i = 0; i < peers_.size(); i++) {
            Peer& peer = peers_[i];
            if (peer.is_connecting && now >= peer.give_up_at) hang_up(peer);
            const bool is_wanted = !peer.is_guest || hears(peer.id);
            if (!peer.fd && is_wanted && now >= peer.dial_at) dial(peer, i, now);
            if (peer.is_connecting) next = (std::min)(next, peer.give_up_at);
            if (!peer.fd && is_wanted) next = (std::min)(next, peer.dial_at);
        }
        return next;
    }
    void flush() {
        for (std::uint32_t i = 0; i < peers_.size(); i++) {
            if (peers_[i].fd && !peers_[i].is_connecting) flush(peers_[i], i);
        }
    }
    void on_ready(Tag tag, std::uint32_t events, coord::Replica& replica) {
        if (tag.kind == Tag::Kind::peers) return accept_all();
        if (tag.kind == Tag::Kind::dialled) return look_at(peers_[tag.index], tag.index, events);
        Incoming& incoming = incoming_[tag.index];
        if (incoming.fd && !read_from(incoming, replica)) end(incoming, replica);
    }

private:
    static constexpr std::uint64_t hello_magic = 0x7a6b736572766532;  // "zkserve2"
    static constexpr std::size_t hello_bytes = 20;
    static constexpr std::uint32_t id_max = 255;  // as in zoo.cfg

    struct Peer {
        coord::PeerId id;
        SocketAddress address;
        std::string host;                 // what that was found from
        int port = 0;
        bool is_guest = false;            // known by its hello alone
        bool is_fixed = false;            // whatever the members say
        Fd fd;
        bool is_connecting = false;
        bool is_writing = false;          // epoll is asked for room
        coord::Time dial_at;
        coord::Time give_up_at;
        coord::Duration backoff = coord::milliseconds(20);
        coord::Bytes out;
        std::size_t out_sent = 0;
    };
    struct Incoming {
        Fd fd;
        coord::PeerId from;               // nobody before the hello
        coord::Bytes in;
    };

    Peer* find(coord::PeerId id) {
        for (Peer& peer : peers_) {
            if (peer.id == id) return &peer;
        }
        return nullptr;
    }

    Peer& find_or_add(coord::PeerId id) {
        if (Peer* const peer = find(id)) return peer->is_guest = false, *peer;
        peers_.emplace_back();
        peers_.back().id = id;
        return peers_.back();
    }
    bool hears(coord::PeerId id) const {
        for (const Incoming& one : incoming_) {
            if (one.fd && one.from == id) return true;
        }
        return false;
    }

    void dial(Peer& peer, std::uint32_t index, coord::Time now) {
        peer.dial_at = now + peer.backoff;
        peer.backoff = (std::min)(peer.backoff * 2, coord::milliseconds(500));
        peer.fd = Fd(::socket(peer.address.storage.ss_family,
                              SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
        if (!peer.fd) return;
        set_no_delay(peer.fd.get());
        const unsigned int patience_ms = 5000;  // a machine without power answers nothing
        setsockopt(peer.fd.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, &patience_ms,
                   sizeof patience_ms);
        peer.is_connecting = true, peer.is_writing = true;
        peer.give_up_at = now + coord::seconds(1);
        const int result = ::connect(peer.fd.get(), peer.address.get(), peer.address.size);
        if (result != 0 && errno != EINPROGRESS) return hang_up(peer);
        poller_.add(peer.fd.get(), EPOLLIN | EPOLLOUT, {Tag::Kind::dialled, index});
        coord::Writer out(peer.out);
        out.u32(hello_bytes), out.u64(hello_magic), out.u32(self_.value), out.u32(peer.id.value);
        out.u32(port_);
    }

    void look_at(Peer& peer, std::uint32_t index, std::uint32_t events) {
        if (!peer.fd) return;
        if (peer.is_connecting) {
            int error = 0;
            socklen_t size = sizeof error;
            getsockopt(peer.fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
            if (error != 0) return hang_up(peer);
            peer.is_connecting = false;
        } else if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
            return hang_up(peer);  // nobody answers on this connection: it has ended
        }
        flush(peer, index);
    }

    void flush(Peer& peer, std::uint32_t index) {
        while (peer.out_sent < peer.out.size()) {
            const ssize_t sent = ::send(peer.fd.get(), peer.out.data() + peer.out_sent,
                                        peer.out.size() - peer.out_sent, MSG_NOSIGNAL);
            if (sent < 0 && errno == EINTR) continue;
            if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
            if (sent < 0) return hang_up(peer);
            peer.out_sent += static_cast<std::size_t>(sent);
        }
        const bool is_rest = peer.out_sent < peer.out.size();
        if (!is_rest || peer.out_sent > queue_bytes_max / 4) {
            peer.out.erase(0, peer.out_sent);
            peer.out_sent = 0;
        }
        if (is_rest == peer.is_writing) return;
        peer.is_writing = is_rest;
        const std::uint32_t events = is_rest ? EPOLLIN | EPOLLOUT : EPOLLIN;
        poller_.change(peer.fd.get(), events, {Tag::Kind::dialled, index});
    }

    void hang_up(Peer& peer) {
        peer.fd.close();
        peer.is_connecting = false;
        peer.out.clear(), peer.out_sent = 0;
    }

    void accept_all() {
        for (;;) {
            Fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
            if (!fd) return;
            std::uint32_t place = 0;
            std::size_t strangers = 0;
            while (place < incoming_.size() && incoming_[place].fd) place += 1;
            for (const Incoming& one : incoming_) strangers += one.fd && one.from.value == 0;
            if (strangers >= strangers_max) continue;
            if (place == incoming_.size()) incoming_.emplace_back();
            incoming_[place] = Incoming{std::move(fd), {}, {}};
            poller_.add(incoming_[place].fd.get(), EPOLLIN, {Tag::Kind::accepted, place});
        }
    }

    // RETURNS false when the connection has ended, or has to.
    bool read_from(Incoming& incoming, coord::Replica& replica) {
        for (int i = 0; i < 16; i++) {
            const ssize_t size = ::recv(incoming.fd.get(), &chunk_[0], chunk_.size(), 0);
            if (size < 0 && errno == EINTR) continue;
            if (size < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
            if (size == 0) return false;
            incoming.in.append(chunk_.data(), static_cast<std::size_t>(size));
            if (!take_frames(incoming, replica)) return false;
        }
        return true;
    }

    bool take_frames(Incoming& incoming, coord::Replica& replica) {
        coord::BytesView rest = incoming.in;
        while (rest.size() >= 4) {
            const std::size_t size = coord::Reader(rest).u32();
            if (size > (incoming.from.value == 0 ? hello_bytes : frame_bytes_max_)) return false;
            if (rest.size() < 4 + size) break;
            const coord::BytesView frame = rest.substr(4, size);
            if (incoming.from.value != 0) {
                replica.receive(incoming.from, frame);
            } else if (!take_hello(incoming, frame)) {
                return false;
            }
            rest.remove_prefix(4 + size);
        }
        incoming.in.erase(0, incoming.in.size() - rest.size());
        return true;
    }

    bool take_hello(Incoming& incoming, coord::BytesView frame) {
        coord::Reader in(frame);
        const bool is_ours = in.u64() == hello_magic;
        const coord::PeerId from{in.u32()};
        const coord::PeerId to{in.u32()};
        const std::uint32_t port = in.u32();
        const bool is_sound = in.done() && is_ours && to == self_ && from != self_ &&
                              from.value >= 1 && from.value <= id_max && port <= 65535;
        if (!is_sound) return false;
        Peer* const peer = greet(from, static_cast<int>(port), incoming);
        for (Incoming& older : incoming_) {  // it has dialled again: the one before is dead
            if (older.from == from) older.fd.close(), older.from = {};
        }
        incoming.from = from;
        peer->backoff = coord::milliseconds(20);  // whoever dials us is there: dial it at once
        if (!peer->fd) peer->dial_at = coord::Time{};
        return true;
    }

    // Of one that nobody has named: where it has come from, and its port.
    Peer* greet(coord::PeerId from, int port, const Incoming& incoming) {
        Peer* peer = find(from);
        if (peer != nullptr && !peer->is_guest) return peer;
        SocketAddress address;
        address.size = sizeof address.storage;
        getpeername(incoming.fd.get(), address.get(), &address.size);
        add(from, address.host(), port);
        peer = find(from);
        peer->is_guest = true;
        return peer;
    }

    // The end of the connection on which a peer was heard is the news of its crash.
    void end(Incoming& incoming, coord::Replica& replica) {
        if (incoming.from.value != 0) replica.forget(incoming.from);
        incoming.fd.close();
        incoming.from = {}, incoming.in.clear();
    }

    Poller& poller_;
    const coord::PeerId self_;
    const std::size_t frame_bytes_max_;
    Fd listener_;
    std::uint32_t port_ = 0;
    std::optional<coord::Zxid> followed_;
    std::deque<Peer> peers_;  // in place: one that is being read may add another
    std::deque<Incoming> incoming_;
    std::string chunk_;
};

}  // namespace zkserver
