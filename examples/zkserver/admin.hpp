// The HTTP server: admin.enableServer. A connection is one request and its answer; there are few of
// them at a time, none for long, and none that is large.
#pragma once

#include "pages.hpp"
#include "sockets.hpp"

#include <deque>

namespace zkserver {

class Admin {
public:
    static constexpr std::size_t connections_max = 32;
    static constexpr int patience_s = 10;

    Admin(Service& service, Poller& poller) : service_(service), poller_(poller) {}

    // RETURNS "", or what is wrong.
    std::string open(const std::string& host, int port) {
        const std::string error = listen_on(host, port, listener_);
        if (error.empty()) poller_.add(listener_.get(), EPOLLIN, {Tag::Kind::admin, 0});
        return error;
    }
    int port() const { return port_of(listener_); }

    void on_ready(Tag tag, std::uint32_t events) {
        if (tag.kind == Tag::Kind::admin) return accept_all();
        Visitor& visitor = visitors_[tag.index];
        if (!visitor.fd) return;
        const bool goes_on = visitor.out.empty() ? read(visitor, tag) : write(visitor);
        if (!goes_on || (events & EPOLLERR) != 0) visitor = Visitor();
    }
    void tick() {
        for (Visitor& visitor : visitors_) {
            if (visitor.fd && service_.now > visitor.until) visitor = Visitor();
        }
    }

private:
    struct Visitor {
        Fd fd;
        coord::Time until;
        std::string in, out;
        std::size_t sent = 0;
    };

    void accept_all() {
        for (;;) {
            Fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
            if (!fd) return;
            std::uint32_t place = 0;
            while (place < visitors_.size() && visitors_[place].fd) place += 1;
            if (place == connections_max) continue;
            if (place == visitors_.size()) visitors_.emplace_back();
            const coord::Time until = service_.now + coord::seconds(patience_s);
            visitors_[place] = Visitor{std::move(fd), until, {}, {}, 0};
            poller_.add(visitors_[place].fd.get(), EPOLLIN, {Tag::Kind::visitor, place});
        }
    }
    // Both RETURN false when the connection is to be closed.
    bool read(Visitor& visitor, Tag tag) {
        char chunk[4096];
        const ssize_t size = ::recv(visitor.fd.get(), chunk, sizeof chunk, 0);
        if (size < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
        if (size == 0) return false;
        visitor.in.append(chunk, static_cast<std::size_t>(size));
        if (visitor.in.find("\r\n\r\n") == std::string::npos) {
            return visitor.in.size() <= Pages::request_bytes_max;
        }
        visitor.out = Pages(service_).answer(visitor.in);
        poller_.change(visitor.fd.get(), EPOLLOUT, tag);
        return write(visitor);
    }
    static bool write(Visitor& visitor) {
        while (visitor.sent < visitor.out.size()) {
            const ssize_t size = ::send(visitor.fd.get(), visitor.out.data() + visitor.sent,
                                        visitor.out.size() - visitor.sent, MSG_NOSIGNAL);
            if (size < 0 && errno == EINTR) continue;
            if (size < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
            visitor.sent += static_cast<std::size_t>(size);
        }
        return false;
    }

    Service& service_;
    Poller& poller_;
    Fd listener_;
    std::deque<Visitor> visitors_;
};

}  // namespace zkserver
