// Three processes, each with a replica on files of its own, over TCP on the loopback: an ensemble
// forms, nodes are created and watched, and the process of the leader is killed in the middle of
// many writes. Nothing that was acknowledged is lost, and the survivors agree to the last bit. The
// dead one is started again and catches up. A leader hands over in the middle of writes, ends, and
// comes back. Then all three are killed at once, and started again: what was acknowledged is there,
// and the ensemble goes on.
//
//     g++ -std=c++17 -O1 -I. examples/three_processes.cpp -o three_processes && ./three_processes
#define COORD_IMPLEMENTATION
#include "coord.hpp"

#include "support/processes.hpp"
#include "support/scratch_directory.hpp"

#include <cinttypes>
#include <climits>
#include <cstdarg>
#include <map>
#include <set>
#include <sstream>

// ------------------------------------------------------------------------------------------------
// A child: a replica, one session, and a line for everything that it is asked to do:
//     TAG create PATH DATA MODE | TAG get PATH | TAG watch PATH | TAG set PATH DATA
//     TAG ls PATH | TAG sync | TAG status | TAG hand_over
// It answers TAG ok TEXT or TAG ERROR, and says "event TYPE PATH" when a watch fires. First it
// says "storage TEXT", what it has found in its directory, and "session ok", when it is at work.

static const char* const mode_names[] = {"persistent", "ephemeral", "persistent_sequential",
                                         "ephemeral_sequential"};

static std::string status_line(const coord::ReplicaStatus& status) {
    char text[160];
    std::snprintf(text, sizeof text, "%s leader %" PRIu32 " epoch %" PRIu32
                  " zxid %" PRIx64 " digest %016" PRIx64, coord::name(status.role),
                  status.leader.value, status.epoch, status.applied.value, status.digest);
    return text;
}

static void execute(Member& member, const coord::Session& session, const std::string& line) {
    std::istringstream words(line);
    std::string tag, verb, path, data, mode;
    words >> tag >> verb >> path >> data >> mode;
    auto answer = [&member, tag](coord::Errc error, const std::string& text) {
        member.say(tag + " " + coord::name(error) + " " + text);
    };
    if (verb == "create") {
        int number = 0;
        while (number < 3 && mode != mode_names[number]) number += 1;
        session.create(path, data, static_cast<coord::CreateMode>(number), [answer](auto created) {
            answer(created.error(), created ? created->path : "");
        });
    } else if (verb == "set") {
        session.set(path, data, [answer](auto stat) {
            answer(stat.error(), stat ? "version " + std::to_string(stat->version) : "");
        });
    } else if (verb == "get") {
        session.get(path, [answer](auto node) { answer(node.error(), node ? node->bytes : ""); });
    } else if (verb == "watch") {
        auto on_event = [&member](const coord::WatchEvent& event) {
            const bool is_gone = event.type == coord::EventType::deleted;
            member.say((is_gone ? "event deleted " : "event changed ") + event.path);
        };
        session.exists(path, on_event, [answer](auto stat) {
            const bool is_absent = stat.error() == coord::Errc::no_node;
            answer(is_absent ? coord::Errc::ok : stat.error(), is_absent ? "absent" : "watching");
        });
    } else if (verb == "ls") {
        session.children(path, [answer](auto children) {
            std::string names;
            for (std::size_t i = 0; children && i < children->names.size(); i++) {
                names += (i == 0 ? "" : " ") + children->names[i];
            }
            answer(children.error(), names);
        });
    } else if (verb == "hand_over") {
        answer(member.replica().hand_over(), "");
    } else if (verb == "sync") {
        session.sync([answer](auto done) { answer(done.error(), ""); });
    } else {
        answer(coord::Errc::ok, status_line(member.replica().status()));
    }
}

static void run_replica(const Seat& seat) {
    coord::FileStorageOptions files;
    files.directory = seat.directory;
    files.segment_bytes = 128 * 1024;      // small, for a short story: several segments of the log
    coord::FileStorage storage{files};
    coord::ReplicaOptions replica;
    replica.snapshot_every_entries = 400;  // and snapshots
    replica.log_entries_kept = 200;
    Member member{seat, storage, replica};
    member.say("storage " + storage.report().text());

    std::optional<coord::Session> session;
    coord::SessionOptions options;
    options.timeout = coord::seconds(2);
    coord::Session::open(member.replica(), options, [&](coord::Result<coord::Session> opened) {
        if (opened) session = *opened;
        member.say(std::string("session ") + coord::name(opened.error()));
    });
    member.run([&](const std::string& line) { if (session) execute(member, *session, line); });
}

// ------------------------------------------------------------------------------------------------
// The parent: asks, prints, and compares.

class Story {
public:
    int run();

private:
    void ensemble_forms();
    void nodes_and_modes();
    void a_watch_fires();
    void leader_dies_among_writes();
    void nothing_is_lost();
    void ephemerals_go();
    void all_agree();
    void the_dead_one_returns();
    void leader_hands_over_among_writes();
    void all_die_among_writes();
    void all_return();
    void life_goes_on();

    void say(const char* format, ...) __attribute__((format(printf, 2, 3)));
    void fail(const std::string& why);
    bool hear(Processes::Line& line, coord::Duration patience);
    std::string ask(int id, const std::string& command);   // prints neither
    std::string show(int id, const std::string& command);  // prints both
    void await_event(int id, const std::string& event, coord::Duration patience);
    void await_sessions(int count);
    void find_the_leader();
    void write_until(int asked_for, std::size_t acknowledged);
    void write_one(int id);
    void take_write(const Processes::Line& line);
    void measure_at(int id);
    double measured_ms() const;
    void kill(int id);
    std::string check_writes(int id);
    std::size_t in_flight() const;
    std::vector<int> living() const;

    static constexpr int writes_total = 1500;
    static constexpr int writes_before_the_kill = 500;
    static constexpr int window = 16;  // in flight at each replica

    ScratchDirectory directory_;       // outlives the processes
    Processes processes_;
    coord::Time started_at_ = monotonic_now();
    bool failed_ = false;
    int tag_ = 0;
    int leader_ = 0;
    int dead_ = 0;
    std::vector<std::string> events_;          // "2 event changed /javaer"
    int written_ = 0;                          // so many were asked for
    int measured_at_ = 0;                      // at this replica; 0: at any
    int measured_from_ = INT_MAX;              // of the writes this one, and those after it
    coord::Time measured_since_;
    coord::Time first_acknowledged_at_;        // of those
    std::map<int, std::set<std::string>> in_flight_;
    std::set<std::string> acknowledged_;
    std::set<std::string> died_with_caller_;
};

int Story::run() {
    if (directory_.path().empty()) fail("no temporary directory");
    const std::string error = processes_.start(3, 60, run_replica, directory_.path());
    if (!error.empty()) fail(error);
    void (Story::*const chapters[])() = {
        &Story::ensemble_forms, &Story::nodes_and_modes, &Story::a_watch_fires,
        &Story::leader_dies_among_writes, &Story::nothing_is_lost, &Story::ephemerals_go,
        &Story::all_agree, &Story::the_dead_one_returns, &Story::nothing_is_lost,
        &Story::all_agree, &Story::leader_hands_over_among_writes, &Story::nothing_is_lost,
        &Story::all_agree, &Story::all_die_among_writes, &Story::all_return,
        &Story::nothing_is_lost, &Story::all_agree, &Story::life_goes_on,
        &Story::nothing_is_lost, &Story::all_agree};
    for (auto chapter : chapters) {
        if (!failed_) (this->*chapter)();
    }
    if (!failed_ && !processes_.quit()) fail("a process did not end well");
    if (!failed_) say("all is well");
    return failed_ ? 1 : 0;
}

void Story::ensemble_forms() {
    await_sessions(3);
    find_the_leader();
    if (!failed_) say("three replicas are at work, replica %d leads", leader_);
}

void Story::nodes_and_modes() {
    show(1, "create /javaer www.javaer.com.cn persistent");
    show(2, "sync");  // replica 2 reads its own memory: bring it up to what replica 1 has done
    show(2, "ls /");
    show(3, "sync");
    show(3, "get /javaer");
    show(1, "create /modes - persistent");
    for (const char* mode : mode_names) {
        show(leader_, std::string("create /modes/") + mode[0] + "- x " + mode);
    }
}

void Story::a_watch_fires() {
    show(2, "watch /javaer");
    show(3, "set /javaer another.value");
    await_event(2, "event changed /javaer", coord::seconds(5));
    show(2, "get /javaer");
}

void Story::leader_dies_among_writes() {
    show(1, "create /writes - persistent");
    find_the_leader();
    say("%d writes through all three, %d in flight at each ...", writes_total, window);
    write_until(writes_total, writes_before_the_kill);
    if (failed_) return;
    kill(dead_ = leader_);
    measure_at(0);
    say("kill -9 of replica %d, the leader, after %zu acknowledged writes", dead_,
        acknowledged_.size());
    for (int id : living()) write_one(id);  // one more each, to be sure of one asked for after it
    write_until(writes_total, SIZE_MAX);
    find_the_leader();
    if (failed_) return;
    say("replica %d leads now", leader_);
    say("failover %.1f ms: from the kill to the first acknowledged write asked for after it",
        measured_ms());
}

// As a replica is stopped for an upgrade: nobody has to find out that its leader is gone.
void Story::leader_hands_over_among_writes() {
    find_the_leader();
    if (failed_) return;
    const int before = leader_;
    say("more writes through all three ...");
    write_until(INT_MAX, acknowledged_.size() + 200);
    if (failed_) return;
    measure_at(before);
    processes_.tell(before, "h hand_over");
    write_one(before);
    write_until(written_ + 300, SIZE_MAX);
    find_the_leader();
    if (failed_) return;
    if (leader_ == before) return fail("nobody has taken the leader's place");
    say("replica %d has handed over, replica %d leads now", before, leader_);
    say("pause %.1f ms: from that to the first acknowledged write asked for after it, there",
        measured_ms());
    if (!processes_.quit(before)) return fail("a process did not end well");
    say("replica %d has ended, and is started again", before);
    const std::string error = processes_.spawn(before);
    if (!error.empty()) return fail(error);
    await_sessions(1);
}

// The time of the next write that is asked for, from now on.
void Story::measure_at(int id) {
    measured_at_ = id, measured_from_ = written_;
    measured_since_ = monotonic_now(), first_acknowledged_at_ = coord::Time{};
}

double Story::measured_ms() const {
    return static_cast<double>((first_acknowledged_at_ - measured_since_).ns) / 1e6;
}

void Story::nothing_is_lost() {
    say("%zu writes acknowledged; %zu were in flight in a process that died",
        acknowledged_.size(), died_with_caller_.size());
    std::set<std::string> lists;
    for (int id : living()) lists.insert(check_writes(id));
    if (!failed_ && lists.size() != 1) fail("the replicas have different nodes");
}

// RETURNS the names of all writes that a replica has.
std::string Story::check_writes(int id) {
    ask(id, "sync");
    const std::string list = ask(id, "ls /writes");
    if (failed_) return "";
    std::istringstream words(list);
    std::set<std::string> present;
    for (std::string name; words >> name;) present.insert(name);
    std::size_t lost = 0;
    std::size_t unasked = 0;
    for (const std::string& name : acknowledged_) lost += present.count(name) == 0;
    for (const std::string& name : present) {
        unasked += acknowledged_.count(name) == 0 && died_with_caller_.count(name) == 0;
    }
    say("replica %d: %zu writes, %zu acknowledged ones missing", id, present.size(), lost);
    if (lost != 0 || unasked != 0) fail("acknowledged and present writes differ");
    return list;
}

// The session of the dead process expires, and its ephemeral nodes go.
void Story::ephemerals_go() {
    const int id = living().front();
    show(id, "ls /modes");
    if (show(id, "watch /modes/e-") == "watching") {
        await_event(id, "event deleted /modes/e-", coord::seconds(10));
    }
    if (show(id, "ls /modes") != "p- p-0000000002") fail("not the two persistent ones");
}

void Story::all_agree() {
    auto after = [](const std::string& text, const char* word) {
        return text.substr((std::min)(text.find(word), text.size()));
    };
    for (int tries = 0; tries < 100 && !failed_; tries++) {
        std::map<int, std::string> status;
        std::set<std::string> states;   // zxid and digest
        std::set<std::string> digests;
        for (int id : living()) ask(id, "sync");
        for (int id : living()) {
            status[id] = ask(id, "status");
            states.insert(after(status[id], "zxid"));
            digests.insert(after(status[id], "digest"));
        }
        const std::string zxid = states.begin()->substr(0, states.begin()->find(" digest"));
        const bool is_level = states.rbegin()->compare(0, zxid.size(), zxid) == 0;
        if (!is_level) continue;  // one is a little ahead
        for (const auto& [id, text] : status) say("replica %d: %s", id, text.c_str());
        if (digests.size() != 1) fail("different digests at the same zxid");
        return;
    }
    fail("the replicas do not come to the same zxid");
}

void Story::the_dead_one_returns() {
    say("replica %d is started again on its directory", dead_);
    const std::string error = processes_.spawn(dead_);
    if (!error.empty()) return fail(error);
    await_sessions(1);
}

void Story::all_die_among_writes() {
    say("more writes through all three ...");
    write_until(INT_MAX, acknowledged_.size() + 200);
    if (failed_) return;
    const std::size_t count = in_flight();
    for (int id = 1; id <= 3; id++) processes_.signal(id, SIGKILL);
    for (int id = 1; id <= 3; id++) kill(id);
    say("kill -9 of all three at once, after %zu acknowledged writes, with %zu in flight",
        acknowledged_.size(), count);
}

void Story::all_return() {
    say("all three are started again on their directories");
    for (int id = 1; id <= 3; id++) {
        const std::string error = processes_.spawn(id);
        if (!error.empty()) return fail(error);
    }
    await_sessions(3);
    find_the_leader();
    if (!failed_) say("three replicas are at work, replica %d leads", leader_);
}

void Story::life_goes_on() {
    show(2, "get /javaer");
    show(1, "set /javaer the.next.day");
    write_until(written_ + 100, SIZE_MAX);
    say("100 more writes");
}

// ------------------------------------------------------------------------------------------------

// Keeps in flight what the windows allow, until so many are acknowledged; or until so many were
// asked for, and all are answered.
void Story::write_until(int asked_for, std::size_t acknowledged) {
    const coord::Time deadline = monotonic_now() + coord::seconds(30);
    Processes::Line line;
    while (!failed_ && acknowledged_.size() < acknowledged) {
        for (int id : living()) {
            const bool is_free = in_flight_[id].size() < static_cast<std::size_t>(window);
            if (is_free && written_ < asked_for) write_one(id);
        }
        if (in_flight() == 0) return;
        if (!hear(line, deadline - monotonic_now())) return fail("writes do not go on");
    }
}

void Story::write_one(int id) {
    const std::string name = "w" + std::to_string(written_++);
    in_flight_[id].insert(name);
    processes_.tell(id, name + " create /writes/" + name + " value persistent");
}

// An answer to a write, if it is one. Every error is one: a write done twice would be node_exists.
void Story::take_write(const Processes::Line& line) {
    std::istringstream words(line.text);
    std::string name, result;
    words >> name >> result;
    if (in_flight_[line.from].erase(name) == 0) return;
    if (result != "ok") return fail(line.text);
    acknowledged_.insert(name);
    const bool is_there = measured_at_ == 0 || measured_at_ == line.from;
    const bool is_after = is_there && std::atoi(name.c_str() + 1) >= measured_from_;
    if (is_after && first_acknowledged_at_ == coord::Time{}) {
        first_acknowledged_at_ = monotonic_now();
    }
}

std::size_t Story::in_flight() const {
    std::size_t count = 0;
    for (const auto& one : in_flight_) count += one.second.size();
    return count;
}

// What it was asked for and has not answered is there later, or is not: nobody was promised either.
void Story::kill(int id) {
    processes_.kill_hard(id);
    died_with_caller_.insert(in_flight_[id].begin(), in_flight_[id].end());
    in_flight_[id].clear();
}

std::vector<int> Story::living() const {
    std::vector<int> ids;
    for (int id = 1; id <= 3; id++) {
        if (processes_.is_alive(id)) ids.push_back(id);
    }
    return ids;
}

void Story::find_the_leader() {
    leader_ = 0;
    for (int tries = 0; tries < 1000 && leader_ == 0 && !failed_; tries++) {
        for (int id : living()) {
            if (ask(id, "status").compare(0, 7, "LEADING") == 0) leader_ = id;
        }
    }
    if (leader_ == 0 && !failed_) fail("nobody leads");
}

void Story::await_sessions(int count) {
    Processes::Line line;
    while (count > 0 && !failed_) {
        if (!hear(line, coord::seconds(10))) return fail("no ensemble");
        if (line.text.compare(0, 8, "storage ") == 0) {
            say("  replica %d: %s", line.from, line.text.c_str() + 8);
        } else if (line.text.compare(0, 8, "session ") == 0) {
            if (line.text != "session ok") fail(line.text);
            count -= 1;
        }
    }
}

void Story::say(const char* format, ...) {
    std::printf("%7.1f ms  ", static_cast<double>((monotonic_now() - started_at_).ns) / 1e6);
    va_list arguments;
    va_start(arguments, format);
    std::vprintf(format, arguments);
    va_end(arguments);
    std::printf("\n");
    std::fflush(stdout);
}

void Story::fail(const std::string& why) {
    say("FAILED: %s", why.c_str());
    failed_ = true;
}

bool Story::hear(Processes::Line& line, coord::Duration patience) {
    if (!processes_.hear(line, monotonic_now() + patience)) return false;
    if (line.text.compare(0, 6, "event ") == 0) {
        events_.push_back(std::to_string(line.from) + " " + line.text);
    }
    take_write(line);
    return true;
}

std::string Story::ask(int id, const std::string& command) {
    if (failed_) return "";
    const std::string tag = "t" + std::to_string(++tag_);
    processes_.tell(id, tag + " " + command);
    Processes::Line line;
    while (hear(line, coord::seconds(10))) {
        if (line.from != id || line.text.compare(0, tag.size() + 1, tag + " ") != 0) continue;
        const std::string result = line.text.substr(tag.size() + 1);
        if (result.compare(0, 3, "ok ") == 0) return result.substr(3);
        fail(command + ": " + result);
        return result;
    }
    fail(command + ": no answer");
    return "";
}

std::string Story::show(int id, const std::string& command) {
    const std::string answer = ask(id, command);
    say("  replica %d: %-46s %s", id, command.c_str(), answer.empty() ? "ok" : answer.c_str());
    return answer;
}

void Story::await_event(int id, const std::string& event, coord::Duration patience) {
    const std::string wanted = std::to_string(id) + " " + event;
    const coord::Time deadline = monotonic_now() + patience;
    Processes::Line line;
    while (std::find(events_.begin(), events_.end(), wanted) == events_.end()) {
        if (!hear(line, deadline - monotonic_now())) return fail("no " + wanted);
    }
    say("  replica %d: %s", id, event.c_str());
}

int main() { return Story{}.run(); }
