// What of the operating system a server needs: sockets that do not block, and epoll, which says
// which of them are ready; addresses, and the clocks.
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
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

namespace zkserver {

// BOOTTIME runs on while the machine is suspended: sessions must not believe that no time passed.
inline coord::Time read_clock() {
    timespec time{};
    clock_gettime(CLOCK_BOOTTIME, &time);
    return coord::Time{} + coord::seconds(time.tv_sec) + coord::nanoseconds(time.tv_nsec);
}

inline std::int64_t read_wall_ms() {
    timespec time{};
    clock_gettime(CLOCK_REALTIME, &time);
    return std::int64_t{time.tv_sec} * 1000 + time.tv_nsec / 1000000;
}

// A file descriptor that is closed when it goes.
class Fd {
public:
    explicit Fd(int fd = -1) : fd_(fd) {}
    Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Fd& operator=(Fd&& other) noexcept {
        if (this != &other) close(), fd_ = std::exchange(other.fd_, -1);
        return *this;
    }
    ~Fd() { close(); }
    int get() const { return fd_; }
    explicit operator bool() const { return fd_ >= 0; }
    void close() {
        if (fd_ >= 0) ::close(fd_);
        fd_ = -1;
    }

private:
    int fd_;
};

struct SocketAddress {
    sockaddr_storage storage{};
    socklen_t size = 0;

    sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
    const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
    // A name is asked for, which may take its time: at the start alone. RETURNS "", or what is
    // wrong.
    std::string resolve(const std::string& host, int port) {
        addrinfo hints{};
        hints.ai_socktype = SOCK_STREAM;
        addrinfo* found = nullptr;
        const int error =
            getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
        if (error != 0) return host + ": " + gai_strerror(error);
        size = found->ai_addrlen;
        std::memcpy(&storage, found->ai_addr, size);
        freeaddrinfo(found);
        return "";
    }
    std::string host() const {
        char text[INET6_ADDRSTRLEN] = "";
        if (storage.ss_family == AF_INET6) {
            const auto& address = reinterpret_cast<const sockaddr_in6&>(storage);
            inet_ntop(AF_INET6, &address.sin6_addr, text, sizeof text);
            if (IN6_IS_ADDR_V4MAPPED(&address.sin6_addr)) return std::strrchr(text, ':') + 1;
        } else {
            const auto& address = reinterpret_cast<const sockaddr_in&>(storage);
            inet_ntop(AF_INET, &address.sin_addr, text, sizeof text);
        }
        return text;
    }
    int port() const {
        const auto& address = reinterpret_cast<const sockaddr_in&>(storage);  // alike in both
        return ntohs(address.sin_port);
    }
};

inline void set_no_delay(int fd) {
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

// RETURNS "", or what is wrong. Port 0 takes any that is free.
inline std::string listen_on(const std::string& host, int port, Fd& listener) {
    SocketAddress address;
    std::string error = address.resolve(host, port);
    if (!error.empty()) return error;
    listener = Fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
                           0));
    const int on = 1;
    setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (::bind(listener.get(), address.get(), address.size) != 0 ||
        ::listen(listener.get(), 1024) != 0) {
        error = host + ", port " + std::to_string(port) + ": " + std::strerror(errno);
        listener.close();
    }
    return error;
}

inline int port_of(const Fd& listener) {
    SocketAddress address;
    address.size = sizeof address.storage;
    getsockname(listener.get(), address.get(), &address.size);
    return address.port();
}

// Which kind of thing is ready, and which of them.
struct Tag {
    enum class Kind : std::uint32_t {
        listener, wake, stop, client, peers, dialled, accepted, admin, visitor
    };
    Kind kind = Kind::listener;
    std::uint32_t index = 0;
};

class Poller {
public:
    Poller() : fd_(::epoll_create1(EPOLL_CLOEXEC)) {}
    void add(int fd, std::uint32_t events, Tag tag) { control(EPOLL_CTL_ADD, fd, events, tag); }
    void change(int fd, std::uint32_t events, Tag tag) { control(EPOLL_CTL_MOD, fd, events, tag); }
    // What is closed is watched no more. RETURNS what is ready, after so many ms at the latest.
    template <class Visit>
    void wait(int timeout_ms, Visit&& visit) {
        const int count =
            ::epoll_wait(fd_.get(), events_, static_cast<int>(std::size(events_)), timeout_ms);
        for (int i = 0; i < count; i++) {
            const std::uint64_t data = events_[i].data.u64;
            const auto index = static_cast<std::uint32_t>(data);
            visit(Tag{static_cast<Tag::Kind>(data >> 32), index}, events_[i].events);
        }
    }

private:
    void control(int operation, int fd, std::uint32_t events, Tag tag) {
        epoll_event event{};
        event.events = events;
        event.data.u64 = std::uint64_t{static_cast<std::uint32_t>(tag.kind)} << 32 | tag.index;
        ::epoll_ctl(fd_.get(), operation, fd, &event);
    }
    Fd fd_;
    epoll_event events_[512];
};

}  // namespace zkserver
