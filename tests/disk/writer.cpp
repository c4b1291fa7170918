// One replica on files, as a process of its own, for run.py to kill, starve and start again.
//
// usage: disk_writer DIRECTORY LAST [--hold] [--wait | --patient] [--short=K,BYTES,then]
//
// Write 2k-1 creates node k, write 2k sets it, so that the state says how many writes it has had.
// The writer opens the directory, checks that the state is that of the first M writes, does the
// writes M+1 to LAST, and ends. Each line that it prints is one write(2):
//
//   opened REPORT     has M     asked N     acked N     done
//   refused REASON    the storage did not open; exit code 3
//   failed REASON     the replica has stopped; exit code 4
//   wrong TEXT        a promise is broken; exit code 5
//
// --hold      after "has" it waits for the end of its input, and ends.
// --patient   a write that is refused with storage_full is asked again until it is taken.
// --wait      the same, but first it reads everything, removes node 1, prints "full N" and waits
//             for a line of input.
// --short     the K-th pwrite writes that many bytes only (-1: all but one, -2: half), and then it
//             goes on ("go"), the disk is full ("full"), or the process is killed ("kill").
#include "coord.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include <sys/syscall.h>
#include <unistd.h>

namespace {

using coord::Errc;

constexpr std::uint64_t polls_max = 20000;  // of a virtual millisecond: then something hangs

void say(const std::string& line) {
    const std::string text = line + "\n";
    if (::write(1, text.data(), text.size()) != static_cast<ssize_t>(text.size())) std::_Exit(6);
}

[[noreturn]] void end(int code, const std::string& line) {
    say(line);
    std::_Exit(code);
}

void expect(bool holds, const std::string& what) {
    if (!holds) end(5, "wrong " + what);
}

std::string path_of(std::uint64_t write) { return "/node-" + std::to_string((write + 1) / 2); }

std::string value_of(std::uint64_t write) {
    return std::to_string(write) + " " + std::string(20 + write * 37 % 200, 'v');
}

coord::FileStorageOptions files_at(const char* directory) {
    coord::FileStorageOptions options;
    options.directory = directory;
    options.segment_bytes = 4096;
    return options;
}

// What becomes of one pwrite.
struct Short {
    long count = 0;          // of those to come
    long bytes = 0;
    char then = 'g';         // go, full, kill
    bool is_full = false;    // the next one finds the disk full
};
Short the_short;

enum class OnFull { is_wrong, is_patient, waits };

class Writer {
public:
    explicit Writer(const char* directory) : storage_(files_at(directory)) {
        coord::ReplicaOptions options;
        options.entropy = 12345;
        options.snapshot_every_entries = 20, options.log_entries_kept = 5;
        replica_ = std::make_unique<coord::Replica>(options, storage_);
        if (replica_->status().role == coord::Role::failed) {
            end(3, "refused " + storage_.reason());
        }
        say("opened " + storage_.report().text());
        poll_until([this] {
            const coord::ReplicaStatus status = replica_->status();
            return status.serving && status.applied == status.last;
        });
        done_ = writes_there();
        say("has " + std::to_string(done_));
    }

    void write_up_to(std::uint64_t last, OnFull on_full) {
        coord::Session::open(*replica_, {}, [this](coord::Result<coord::Session> opened) {
            if (opened) session_ = std::make_unique<coord::Session>(*opened);
        });
        poll_until([this] { return session_ != nullptr; });
        last_ = done_;
        while (done_ < last) {
            const std::uint64_t batch = done_ % 7 == 3 ? 4 : 1;
            while (last_ < last && last_ < done_ + batch) ask(++last_);
            const std::uint64_t before = done_;
            poll_until([&] { return done_ > before || full_ != 0; });
            if (full_ == 0) continue;
            expect(on_full != OnFull::is_wrong, "a write was refused: full");
            if (on_full == OnFull::waits) wait_for_room();
            ask_again();
        }
        for (int i = 0; i < 50; i++) poll();  // a snapshot that is due is finished
        expect(writes_there() == last || has_removed_, "the last state");
        say("done");
    }

private:
    template <class Condition>
    void poll_until(Condition condition) {
        for (std::uint64_t i = 0; i < polls_max; i++) {
            if (condition()) return;
            poll();
        }
        end(5, "wrong it hangs");
    }

    void poll() {
        now_ = now_ + coord::milliseconds(1);
        replica_->poll(now_, 1700000000000 + now_.ns / 1000000);
        if (replica_->status().role != coord::Role::failed) return;
        expect(storage_.health() != Errc::ok, "failed, and the storage is healthy");
        const std::uint64_t acknowledged = done_;
        replica_->poll(now_);
        expect(done_ == acknowledged, "a failed replica acknowledges");
        end(4, "failed " + storage_.reason());
    }

    void ask(std::uint64_t number) {
        say("asked " + std::to_string(number));
        const auto answer = [this, number](Errc error) {
            if (error == Errc::storage_full) {
                full_ = full_ == 0 ? number : (std::min)(full_, number);
                return;
            }
            if (error == Errc::replica_failed || error == Errc::outcome_unknown) return;
            expect(error == Errc::ok, "write " + std::to_string(number) + ": " +
                                          coord::name(error));
            expect(number == done_ + 1, "answers come in order");
            done_ = number;
            say("acked " + std::to_string(number));
        };
        if (number % 2 == 1) {
            session_->create(path_of(number), value_of(number),
                             [answer](coord::Result<coord::Created> r) { answer(r.error()); });
        } else {
            session_->set(path_of(number), value_of(number), coord::any_version,
                          [answer](coord::Result<coord::Stat> r) { answer(r.error()); });
        }
    }

    // How many writes the state has had; node 1 may be gone where there was no room.
    std::uint64_t writes_there() {
        const coord::Tree& tree = replica_->tree();
        std::uint64_t nodes = 0, count = 0;
        for (std::uint64_t number = 1;; number += 2) {
            const auto node = tree.find(path_of(number));
            if (!node && number == 1 && tree.find(path_of(3))) {
                has_removed_ = true, count = 2;
                continue;
            }
            if (!node) break;
            nodes += 1;
            expect(count == number - 1, "a set is missing before " + path_of(number));
            const bool is_set = node->data == value_of(number + 1);
            expect(is_set || node->data == value_of(number), "the data of " + path_of(number));
            count = is_set ? number + 1 : number;
        }
        expect(replica_->status().nodes == nodes + fresh_nodes, "nodes that nobody asked for");
        replica_->audit();
        return count;
    }

    void wait_for_room() {
        const std::uint64_t number = full_;
        expect(replica_->status().serving, "a full replica serves");
        expect(writes_there() == done_, "a full replica is read");
        bool is_removed = has_removed_;
        if (!is_removed) {
            session_->remove(path_of(1), [&](coord::Result<void> r) {
                expect(bool(r), std::string("a full replica removes: ") + coord::name(r.error()));
                is_removed = true;
            });
        }
        poll_until([&] { return is_removed; });
        has_removed_ = true;
        say("full " + std::to_string(number));
        char line = 0;
        if (::read(0, &line, 1) != 1) std::_Exit(6);
    }

    void ask_again() {
        const std::uint64_t before = done_;
        for (std::uint64_t i = 0; i < polls_max && done_ == before; i++) {
            for (int wait = 0; wait < 10; wait++) poll();
            full_ = 0, last_ = done_ + 1;
            ask(last_);
            poll_until([&] { return done_ > before || full_ != 0; });
        }
        expect(done_ > before, "there never is room again");
    }

    static constexpr std::uint64_t fresh_nodes = 4;  // of a tree that nothing was written into
    coord::FileStorage storage_;
    std::unique_ptr<coord::Replica> replica_;
    std::unique_ptr<coord::Session> session_;
    coord::Time now_;
    std::uint64_t done_ = 0;   // acknowledged, or there at the start
    std::uint64_t last_ = 0;   // asked
    std::uint64_t full_ = 0;   // the first that was refused
    bool has_removed_ = false;
};

}  // namespace

// In the place of the C library's.
ssize_t pwrite(int file, const void* bytes, std::size_t size, off_t offset) {
    if (the_short.is_full) {  // once: a full disk has room for what is there already
        the_short.is_full = false;
        return errno = ENOSPC, -1;
    }
    const bool is_it = the_short.count > 0 && --the_short.count == 0;
    const std::size_t most = the_short.bytes == -1   ? size - 1
                             : the_short.bytes == -2 ? size / 2
                                                     : static_cast<std::size_t>(the_short.bytes);
    if (is_it) size = (std::min)(size, most);
    const long put = ::syscall(SYS_pwrite64, file, bytes, size, offset);
    if (is_it && the_short.then == 'k') ::raise(SIGKILL);
    the_short.is_full = is_it && the_short.then == 'f';
    return put;
}

int main(int argc, char** argv) {
    if (argc < 3) return std::fputs("usage: see the top of the source\n", stderr), 2;
    const std::uint64_t last = std::strtoull(argv[2], nullptr, 10);
    bool is_held = false;
    OnFull on_full = OnFull::is_wrong;
    for (int i = 3; i < argc; i++) {
        const std::string argument = argv[i];
        if (argument == "--hold") is_held = true;
        if (argument == "--wait") on_full = OnFull::waits;
        if (argument == "--patient") on_full = OnFull::is_patient;
        Short& cut = the_short;
        std::sscanf(argv[i], "--short=%ld,%ld,%c", &cut.count, &cut.bytes, &cut.then);
    }
    Writer writer(argv[1]);
    char byte = 0;
    while (is_held && ::read(0, &byte, 1) > 0) {
    }
    if (!is_held) writer.write_up_to(last, on_full);
    return 0;
}
