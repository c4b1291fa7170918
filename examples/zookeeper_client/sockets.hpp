// The connections of a client, over TCP: sockets that do not block, and poll(2).
#pragma once

#include "client.hpp"
#include "../zkserver/sockets.hpp"

#include <map>
#include <utility>
#include <vector>

#include <poll.h>

namespace zookeeper_client {

class Sockets final : public Network {
public:
    // One turn of a loop of its own: waits until something has come, or is due, and polls.
    void turn(Client& client, coord::Duration most) {
        std::vector<pollfd> fds;
        add_to(fds);
        const coord::Duration due = client.next_deadline() - zkserver::read_clock();
        const std::int64_t ns = (std::min)(due, most).ns;
        const std::int64_t ms = failed_.empty() && ns > 0 ? (ns + 999999) / 1000000 : 0;
        ::poll(fds.data(), static_cast<nfds_t>(fds.size()), static_cast<int>(ms));
        take(client, fds);
        client.poll(zkserver::read_clock());
    }
    // For a loop of the program's: what to wait for; and what has come of it, before Client::poll.
    void add_to(std::vector<pollfd>& fds) const {
        for (const auto& [link, socket] : sockets_) {
            const bool writes = socket.is_connecting || !socket.out.empty();
            fds.push_back({socket.fd.get(), static_cast<short>(POLLIN | (writes ? POLLOUT : 0)),
                           0});
        }
    }
    void take(Client& client, const std::vector<pollfd>& fds) {
        for (const LinkId link : std::exchange(failed_, {})) client.closed(link);
        for (const pollfd& ready : fds) {
            const auto found = std::find_if(sockets_.begin(), sockets_.end(), [&](auto& each) {
                return each.second.fd.get() == ready.fd;
            });
            if (ready.revents == 0 || found == sockets_.end()) continue;
            Socket& socket = found->second;
            const bool is_whole = (!socket.is_connecting || greet(client, found->first, socket)) &&
                                  flush(socket) && read(client, found->first, socket);
            if (is_whole) continue;
            client.closed(found->first);
            sockets_.erase(found);
        }
    }

    void connect(LinkId link, const Address& to) override {
        zkserver::SocketAddress address;
        if (!address.resolve(to.host, to.port).empty()) return failed_.push_back(link);
        Socket socket;
        socket.fd = zkserver::Fd(::socket(address.storage.ss_family,
                                          SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
        if (!socket.fd) return failed_.push_back(link);
        zkserver::set_no_delay(socket.fd.get());
        const int error = ::connect(socket.fd.get(), address.get(), address.size);
        if (error != 0 && errno != EINPROGRESS) return failed_.push_back(link);
        sockets_.emplace(link, std::move(socket));
    }
    void send(LinkId link, BytesView bytes) override {
        const auto found = sockets_.find(link);
        if (found == sockets_.end()) return;
        found->second.out.append(bytes);
        if (!flush(found->second)) failed_.push_back(link);
    }
    void close(LinkId link) override { sockets_.erase(link); }

private:
    struct Socket {
        zkserver::Fd fd;
        bool is_connecting = true;
        Bytes out;
    };
    static bool greet(Client& client, LinkId link, Socket& socket) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(socket.fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
        if (error != 0) return false;
        socket.is_connecting = false;
        client.connected(link);
        return true;
    }
    static bool is_later() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }
    static bool flush(Socket& socket) {
        while (!socket.out.empty() && !socket.is_connecting) {
            const ssize_t sent = ::send(socket.fd.get(), socket.out.data(), socket.out.size(),
                                        MSG_NOSIGNAL);
            if (sent < 0) return is_later();
            socket.out.erase(0, static_cast<std::size_t>(sent));
        }
        return true;
    }
    // So much at a time that a server that floods does not take all of it.
    static bool read(Client& client, LinkId link, Socket& socket) {
        char bytes[64 * 1024];
        const ssize_t got = ::recv(socket.fd.get(), bytes, sizeof bytes, 0);
        if (got < 0) return is_later();
        client.receive(link, BytesView(bytes, static_cast<std::size_t>(got)));
        return got > 0;
    }

    std::map<LinkId, Socket> sockets_;
    std::vector<LinkId> failed_;  // to be told of
};

}  // namespace zookeeper_client
