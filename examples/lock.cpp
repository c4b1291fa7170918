// Three processes contend for one lock, and each increments a counter under it. One is stopped
// while it holds the lock, until somebody else has it: its late write is refused by its fencing
// token. One is killed while it holds the lock: the next holder comes when its session has expired.
//
//     g++ -std=c++17 -O1 -I. examples/lock.cpp -o lock && ./lock
#define COORD_IMPLEMENTATION
#include "coord.hpp"

#include "support/processes.hpp"

#include <cinttypes>

static constexpr int writes_wanted = 20;
static constexpr int stop_at_entry = 5;
static constexpr int kill_at_entry = 12;

// ------------------------------------------------------------------------------------------------
// A child: a replica, and somebody who wants the lock again and again. The counter is the parent's:
//     enter TOKEN AT UNTIL   I have the lock, since AT, and certainly until UNTIL
//     write TOKEN VALUE      the counter's new value
//     lost                   my session has expired

class Contender {
public:
    explicit Contender(Member& member) : member_(member) {}

    void begin() {  // with a session of its own, the first or the next one
        lock_.reset();
        coord::SessionOptions options;
        options.timeout = coord::seconds(1);
        coord::Session::open(member_.replica(), options, [this](coord::Result<coord::Session> s) {
            if (!s) return member_.say("lost");
            lock_.emplace(*s, "/locks/counter");
            lock_->on_lost([this](coord::Errc) { member_.say("lost"); });
            contend();
        });
    }

    void take_line(const std::string& line) {
        if (line == "begin") {
            begin();
        } else if (line.compare(0, 6, "value ") == 0) {
            // The holder looked at certain_until a moment ago. Whatever happens between a look and
            // a write, a process that is stopped for seconds, say, the fencing token takes care of.
            const int value = std::atoi(line.c_str() + 6);
            member_.say("write " + std::to_string(token_) + " " + std::to_string(value + 1));
        } else if (line == "written" && lock_) {
            lock_->release([this](coord::Result<void> released) {
                if (released) contend();
                else member_.say("lost");
            });
        }
    }

private:
    void contend() {
        lock_->acquire([this](coord::Result<coord::Grant> grant) {
            if (!grant) return member_.say("lost");
            token_ = grant->fencing_token;
            member_.say("enter " + std::to_string(token_) + " " +
                        std::to_string(member_.replica().now().ns) + " " +
                        std::to_string(lock_->certain_until().ns));
        });
    }

    Member& member_;
    std::optional<coord::Lock> lock_;
    std::uint64_t token_ = 0;
};

static void run_replica(const Seat& seat) {
    coord::MemoryStorage storage;  // who dies here does not come back
    Member member{seat, storage};
    Contender contender{member};
    contender.begin();
    member.run([&](const std::string& line) { contender.take_line(line); });
}

// ------------------------------------------------------------------------------------------------
// The parent: owns the counter, and takes no write with a token older than the newest it has seen.

struct Resource {
    Processes processes;
    std::uint64_t newest_token = 0;
    int holder = 0;              // who is inside, as far as anybody can tell from here
    coord::Time holder_until;    // and until when it said that it certainly is
    int entries = 0;
    int counter = 0;
    int refused = 0;
    int stopped = 0;
    int dead = 0;
    const char* failure = nullptr;

    void on_enter(int from, std::uint64_t token, coord::Time at, coord::Time until);
    void on_write(int from, std::uint64_t token, int value);
    void take(const Processes::Line& line);
};

void Resource::on_enter(int from, std::uint64_t token, coord::Time at, coord::Time until) {
    if (token <= newest_token) failure = "a fencing token that is not newer";
    if (holder != 0 && at < holder_until) failure = "two holders at the same time";
    newest_token = token;
    holder = from;
    holder_until = until;
    entries += 1;
    std::printf("replica %d enters with token %" PRIx64 "\n", from, token);
    if (entries == kill_at_entry) {
        std::printf("replica %d is killed inside\n", from);
        processes.kill_hard(dead = from);
        return;
    }
    if (entries == stop_at_entry) {
        std::printf("replica %d is stopped inside\n", from);
        processes.signal(stopped = from, SIGSTOP);
    }
    processes.tell(from, "value " + std::to_string(counter));
}

void Resource::on_write(int from, std::uint64_t token, int value) {
    if (token < newest_token) {
        std::printf("replica %d writes %d with token %" PRIx64 ": refused, %" PRIx64 " was here\n",
                    from, value, token, newest_token);
        refused += 1;
        return;
    }
    if (value != counter + 1) failure = "an increment that was lost";
    counter = value;
    holder = 0;
    processes.tell(from, "written");
    if (stopped != 0 && from != stopped) {  // somebody else had the lock: let the late one go on
        std::printf("replica %d goes on\n", stopped);
        processes.signal(std::exchange(stopped, 0), SIGCONT);
    }
}

void Resource::take(const Processes::Line& line) {
    std::uint64_t token = 0;
    coord::Time at, until;
    int value = 0;
    if (std::sscanf(line.text.c_str(), "enter %" SCNu64 " %" SCNd64 " %" SCNd64, &token, &at.ns,
                    &until.ns) == 3) {
        on_enter(line.from, token, at, until);
    } else if (std::sscanf(line.text.c_str(), "write %" SCNu64 " %d", &token, &value) == 2) {
        on_write(line.from, token, value);
    } else if (line.text == "lost") {
        std::printf("replica %d has lost its session, and opens another\n", line.from);
        processes.tell(line.from, "begin");
    }
}

int main() {
    Resource resource;
    const std::string error = resource.processes.start(3, 40, run_replica);
    if (!error.empty()) resource.failure = error.c_str();
    const coord::Time deadline = monotonic_now() + coord::seconds(30);
    Processes::Line line;
    while (resource.failure == nullptr && resource.counter < writes_wanted) {
        if (resource.processes.hear(line, deadline)) resource.take(line);
        else resource.failure = "out of time";
    }
    if (resource.failure == nullptr && resource.refused == 0) resource.failure = "no late write";
    if (resource.failure == nullptr && !resource.processes.quit()) resource.failure = "a bad end";
    if (resource.failure != nullptr) return std::printf("FAILED: %s\n", resource.failure), 1;
    std::printf("%d increments under the lock, %d late one refused, %d holder killed\n",
                resource.counter, resource.refused, resource.dead != 0 ? 1 : 0);
    return 0;
}
