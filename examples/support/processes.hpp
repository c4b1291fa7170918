// What the examples with several processes share: a parent that forks replicas, one a process,
// talks to each of them in lines of text over a socket pair, starts again those that it has killed,
// and leaves none behind; and the child's side, which runs a replica over TCP and does what the
// lines say.
#pragma once

#include "tcp_transport.hpp"

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include <signal.h>
#include <sys/wait.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

// One end of a socket pair, read in lines.
class LineSocket {
public:
    explicit LineSocket(int fd = -1) : fd_(fd) {}
    int fd() const { return fd_; }
    bool has_ended() const { return ended_; }
    void shut() {
        if (fd_ >= 0) ::close(fd_);
        fd_ = -1, ended_ = true;
    }
    // Blocks while the other side is slow to read; it is never slow for long.
    void write(const std::string& text) {
        const std::string line = text + "\n";
        for (std::size_t done = 0; fd_ >= 0 && done < line.size();) {
            ssize_t size = ::send(fd_, line.data() + done, line.size() - done, MSG_NOSIGNAL);
            if (size < 0 && errno != EINTR) return;  // whoever reads will see the end, too
            if (size > 0) done += static_cast<std::size_t>(size);
        }
    }
    bool read(std::string& line) {  // RETURNS false when there is no whole line now
        for (;;) {
            const std::size_t end = buffer_.find('\n');
            if (end != std::string::npos) {
                line = buffer_.substr(0, end);
                buffer_.erase(0, end + 1);
                return true;
            }
            char chunk[4096];
            ssize_t size = fd_ < 0 ? 0 : ::recv(fd_, chunk, sizeof chunk, MSG_DONTWAIT);
            if (size < 0 && errno == EINTR) continue;
            if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return false;
            if (size <= 0) return ended_ = true, false;
            buffer_.append(chunk, static_cast<std::size_t>(size));
        }
    }

private:
    int fd_;
    bool ended_ = false;
    std::string buffer_;
};

// What a child is given: who it is, and where everybody listens.
struct Seat {
    coord::PeerId id;
    std::uint64_t ensemble = 0;
    int listener = -1;
    int control = -1;                  // its end of the socket pair
    std::vector<std::uint16_t> ports;  // of replica 1, 2, 3
    std::string directory;             // for its files, if the example has a place for any
};

// A child's whole world beside its storage: one replica, its sockets. What the seat says goes into
// the options; the others are the example's.
class Member {
public:
    Member(const Seat& seat, coord::Storage& storage, const coord::ReplicaOptions& options = {})
        : control_(seat.control), transport_(seat.id),
          replica_(seated(seat, options), storage, transport_) {
        transport_.listen_on(seat.listener);
        for (std::size_t i = 0; i < seat.ports.size(); i++) {
            const coord::PeerId peer{static_cast<std::uint32_t>(i + 1)};
            if (peer != seat.id) transport_.add_peer(peer, "127.0.0.1", seat.ports[i]);
        }
    }
    coord::Replica& replica() { return replica_; }
    void say(const std::string& line) { control_.write(line); }
    // The event loop, until the parent says "quit" or is no more.
    void run(const std::function<void(const std::string&)>& on_line) {
        std::string line;
        bool quitting = false;
        while (!quitting && !control_.has_ended()) {
            if (!transport_.run_once(replica_, coord::seconds(1), control_.fd())) continue;
            while (!quitting && control_.read(line)) {
                quitting = line == "quit";
                if (!quitting) on_line(line);
            }
        }
    }

private:
    static coord::ReplicaOptions seated(const Seat& seat, coord::ReplicaOptions options) {
        options.id = seat.id;
        options.voters.clear();
        for (std::size_t i = 0; i < seat.ports.size(); i++) {
            options.voters.push_back(coord::PeerId{static_cast<std::uint32_t>(i + 1)});
        }
        options.ensemble = seat.ensemble;  // another run on this machine is another ensemble
        options.entropy = static_cast<std::uint64_t>(monotonic_now().ns) ^
                          static_cast<std::uint64_t>(getpid()) << 40;
        return options;
    }

    LineSocket control_;
    TcpTransport transport_;
    coord::Replica replica_;
};

// The parent's side. Children are numbered as the replicas are: 1, 2, 3.
class Processes {
public:
    struct Line {
        int from = 0;
        std::string text;
    };

    // Forks count children, each of which runs `run` and exits. In `directory`, if one is given,
    // each has a directory of its own. The whole example is over after seconds_max, come what may.
    // RETURNS "", or what is wrong.
    std::string start(int count, unsigned int seconds_max, void (*run)(const Seat&),
                      const std::string& directory = "") {
        alarm_in(seconds_max_ = seconds_max);
        run_ = run;
        std::vector<std::uint16_t> ports;
        for (int id = 1; id <= count; id++) {
            children_.emplace_back();
            Seat& seat = child(id).seat;
            seat.id = coord::PeerId{static_cast<std::uint32_t>(id)};
            if (!directory.empty()) seat.directory = directory + "/" + std::to_string(id);
            TcpTransport opener{seat.id};
            const std::string error = opener.listen("127.0.0.1", 0);  // any free port
            if (!error.empty()) return error;
            ports.push_back(opener.port());
            seat.listener = opener.release_listener();
        }
        const auto ensemble = static_cast<std::uint64_t>(monotonic_now().ns);
        for (Child& one : children_) one.seat.ports = ports, one.seat.ensemble = ensemble;
        for (int id = 1; id <= count; id++) {
            const std::string error = spawn(id);
            if (!error.empty()) return error;
        }
        return "";
    }
    // Starts one that is dead again, with the same directory and the same port: the parent keeps
    // that open, and whoever dials meanwhile waits. RETURNS "", or what is wrong.
    std::string spawn(int id) {
        Child& one = child(id);
        int pair[2] = {-1, -1};
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) return "no socket pair";
        one.control = LineSocket{pair[0]};
        one.seat.control = pair[1];
        std::fflush(nullptr);
        one.pid = fork();
        if (one.pid == 0) be_child(id);
        ::close(std::exchange(one.seat.control, -1));
        return one.pid > 0 ? "" : "no process";
    }
    ~Processes() {
        for (Child& child : children_) {
            child.control.shut();
            if (child.pid > 0) ::kill(child.pid, SIGKILL), ::waitpid(child.pid, nullptr, 0);
            if (child.seat.listener >= 0) ::close(child.seat.listener);
        }
    }

    bool is_alive(int id) const { return child(id).pid > 0; }
    void signal(int id, int number) {
        if (is_alive(id)) ::kill(child(id).pid, number);
    }
    void kill_hard(int id) {  // kill -9: it gets no chance to say goodbye
        if (!is_alive(id)) return;
        signal(id, SIGKILL);
        ::waitpid(child(id).pid, nullptr, 0);
        child(id).pid = -1;
        child(id).control.shut();
    }
    void tell(int id, const std::string& line) { child(id).control.write(line); }
    // The next line of any child, waited for until `until`. RETURNS false when none came.
    bool hear(Line& line, coord::Time until) {
        for (;;) {
            std::vector<pollfd> polled;
            for (std::size_t turn = 0; turn < children_.size(); turn++) {
                next_ = (next_ + 1) % children_.size();  // each in its turn
                LineSocket& control = children_[next_].control;
                line.from = static_cast<int>(next_ + 1);
                if (control.read(line.text)) return true;
                polled.push_back({control.has_ended() ? -1 : control.fd(), POLLIN, 0});
            }
            const coord::Duration left = until - monotonic_now();
            if (left <= coord::Duration{}) return false;
            ::poll(polled.data(), static_cast<nfds_t>(polled.size()),
                   static_cast<int>((left.ns + 999999) / 1000000));
        }
    }
    // Asks those that are left to go. RETURNS whether each went well.
    bool quit() {
        bool all_well = true;
        for (Child& child : children_) child.control.write("quit");
        for (std::size_t id = 1; id <= children_.size(); id++) {
            all_well = quit(static_cast<int>(id)) && all_well;
        }
        return all_well;
    }
    bool quit(int id) {  // this one alone
        Child& one = child(id);
        if (one.pid <= 0) return true;
        one.control.write("quit");
        int outcome = 0;
        ::waitpid(one.pid, &outcome, 0);
        one.pid = -1;
        one.control.shut();
        return WIFEXITED(outcome) && WEXITSTATUS(outcome) == 0;
    }

private:
    struct Child {
        pid_t pid = -1;
        LineSocket control;
        Seat seat;
    };
    Child& child(int id) { return children_[static_cast<std::size_t>(id - 1)]; }
    const Child& child(int id) const { return children_[static_cast<std::size_t>(id - 1)]; }

    static void alarm_in(unsigned int time) {
        ::signal(SIGALRM, [](int) {
            static const char message[] = "FAILED: out of time\n";
            if (::write(2, message, sizeof message - 1) < 0) _exit(2);
            _exit(1);  // the children see the socket pair's end, and go, too
        });
        alarm(time);
    }
    // Closes what belongs to the others: else a dead one's sockets would live on in its siblings.
    [[noreturn]] void be_child(int id) {
        alarm_in(seconds_max_);
#ifdef __linux__
        prctl(PR_SET_PDEATHSIG, SIGKILL);  // not even one that is stopped outlives the parent
#endif
        const Seat seat = child(id).seat;
        for (Child& one : children_) {
            one.control.shut();
            if (one.seat.id != seat.id) ::close(one.seat.listener);
        }
        run_(seat);
        _exit(0);
    }

    std::vector<Child> children_;
    std::size_t next_ = 0;
    unsigned int seconds_max_ = 0;
    void (*run_)(const Seat&) = nullptr;
};
