// ctest: --every=11
// ctest: --twice --every=1601
//
// Crash points, enumerated: three replicas on simulated disks do a small workload. It is run once
// to count the steps of each disk: the calls of its port, and the chunks of a snapshot that come;
// then, for each replica and each of its steps, before it and after it, it is run again and the
// power of that replica fails there, or of all three. That is done for each way in which what was
// not synced survives (nothing, all, all but the mark; every subset where at most four things are
// pending, else each prefix, each thing alone and each one lost; of the other two: nothing or all),
// and each time the run goes on in four ways:
//
//   0      the victim comes back at once
//   1-3    the two others go on for a while; then that replica is missing, its power cut too, while
//          the other two serve and finish the workload; then it comes back
//
// After the power of all three failed, all come back at once (0), or first two of them (1-3). Each
// time two whose storages count must serve, the workload must end, all must be equal, restart from
// their disks and be what they were. The checkers are those of checkers.hpp, and two more: nobody
// comes back with less than it has told the others, and no power cut is taken for damage. Workloads
// with "late" in their name are the same on disks that work when no message is on its way.
//
// Each step belongs to one or more of the durable steps W1 to W16, and it is counted how many of
// each were cut: one that is never cut, before and after, is a failure.
//
//   --every=N         of the twelve ways to go on from each point (four, of three kinds) every
//                     N-th, each with another one of the choices, and all of the first point of
//                     each kind (1: all of them, which takes some minutes)
//   --twice           instead of the four ways: the victim comes back at once, and its power fails
//                     once more before each step of its recovery, all or nothing of that kept;
//                     with --every=N at every N-th point, and the first of each kind
//   --workload=NAME   one workload; --list: their names, and how many steps each disk has
//   --cut="..."       one run, as it is printed with a violation, and shows what happens

#include "crash_world.hpp"

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>

namespace crash {

// -------------------------------------------------------------------------------------------------
// Workloads

enum class Do : std::uint8_t {
    start,      // * all
    settle,     // until all serve and are equal; the leader is L from the first time on
    arm,        // from here on steps are counted
    open,       // a session at it
    create,     // and wait for the answer, as all of these
    ephemeral,
    set,
    remove,
    close,
    post,       // a create that is not waited for
    wait,       // for all answers
    cut_off,    // from the others
    isolate,    // the same, and wait until nobody reckons with it
    heal,
    cut,        // its power, at rest
    wipe,       // its storage is lost while it is down
    damage,     // a byte of its log rots while it is down
    tear,       // its next flush is torn: its power fails, and a part of it survives
    depose,     // until another one than L leads
};

struct Step {
    Do what;
    char who;                // L the leader, A and B the others, * all
    const char* path = "";
    std::size_t bytes = 20;  // of data
};

struct Workload {
    std::string name;
    Tuning tuning;
    bool is_new;             // begins with empty disks
    std::vector<Step> steps;
};

Tuning with_snapshots(u32 every, u32 entries_kept, u32 snapshots_kept, u64 segment_bytes) {
    Tuning tuning;
    tuning.snapshot_every = every, tuning.entries_kept = entries_kept;
    tuning.snapshots_kept = snapshots_kept, tuning.segment_bytes = segment_bytes;
    return tuning;
}

Tuning with_sector(std::size_t sector) {
    Tuning tuning;
    tuning.sector = sector;
    return tuning;
}

using Steps = std::vector<Step>;

// Up, and somebody leads; then what a workload does.
Steps after_start(const Steps& steps) {
    Steps all{{Do::start, '*'}, {Do::settle, '*'}};
    all.insert(all.end(), steps.begin(), steps.end());
    return all;
}

std::vector<Workload> workloads_in_time() {
    const Tuning plain;
    const Tuning snapshots = with_snapshots(2, 0, 1, 1024);
    return {
        {"founding", plain, true, {{Do::arm, '*'}, {Do::start, '*'}, {Do::settle, '*'}}},
        {"restart", plain, false, {{Do::arm, '*'}, {Do::start, '*'}, {Do::settle, '*'}}},
        {"writes_at_the_leader", plain, false,
         after_start({{Do::open, 'L'}, {Do::arm, '*'}, {Do::create, 'L', "/a"},
                      {Do::set, 'L', "/a"}, {Do::remove, 'L', "/a"}})},
        {"writes_at_a_follower", plain, false,
         after_start({{Do::open, 'A'}, {Do::isolate, 'B'}, {Do::arm, '*'}, {Do::create, 'A', "/a"},
                      {Do::set, 'A', "/a"}, {Do::heal, '*'}, {Do::settle, '*'}})},
        {"writes_in_small_sectors", with_sector(64), false,
         after_start({{Do::open, 'A'}, {Do::isolate, 'B'}, {Do::arm, '*'},
                      {Do::create, 'A', "/a"}})},
        {"ephemeral", plain, false,
         after_start({{Do::arm, '*'}, {Do::open, 'B'}, {Do::ephemeral, 'B', "/e"},
                      {Do::close, 'B'}})},
        {"leader_killed", plain, false,
         after_start({{Do::open, 'A'}, {Do::arm, '*'}, {Do::post, 'A', "/a"}, {Do::cut, 'L'},
                      {Do::wait, 'A'}, {Do::create, 'A', "/b"}, {Do::start, 'L'},
                      {Do::settle, '*'}})},
        {"snapshots", snapshots, false,
         after_start({{Do::open, 'A'}, {Do::arm, '*'}, {Do::create, 'A', "/a", 200},
                      {Do::create, 'A', "/b", 200}, {Do::create, 'A', "/c", 200}})},
        {"snapshots_kept", with_snapshots(1, 1, 2, 512), false,
         after_start({{Do::open, 'L'}, {Do::arm, '*'}, {Do::create, 'L', "/a", 20},
                      {Do::set, 'L', "/a", 20}})},
        {"learner_installs", snapshots, false,
         after_start({{Do::open, 'L'}, {Do::isolate, 'B'}, {Do::create, 'L', "/a", 300},
                      {Do::create, 'L', "/b", 300}, {Do::create, 'L', "/c", 300},
                      {Do::arm, '*'}, {Do::heal, '*'}, {Do::settle, '*'}})},
        {"truncation", plain, false,
         after_start({{Do::open, 'L'}, {Do::open, 'A'}, {Do::cut_off, 'L'},
                      {Do::post, 'L', "/lost"}, {Do::depose, 'L'}, {Do::arm, '*'},
                      {Do::create, 'A', "/a"}, {Do::heal, '*'}, {Do::settle, '*'},
                      {Do::wait, '*'}})},
        {"segments", with_snapshots(10000, 1000, 1, 512), false,
         after_start({{Do::open, 'A'}, {Do::arm, '*'}, {Do::create, 'A', "/a", 300},
                      {Do::create, 'A', "/b", 300}, {Do::create, 'A', "/c", 600}})},
        {"wiped_voter", plain, false,
         after_start({{Do::cut, 'B'}, {Do::wipe, 'B'}, {Do::arm, '*'}, {Do::start, 'B'},
                      {Do::settle, '*'}})},
        {"wiped_leader_of_snapshots", snapshots, false,
         after_start({{Do::cut, 'L'}, {Do::wipe, 'L'}, {Do::arm, '*'}, {Do::start, 'L'},
                      {Do::settle, '*'}})},
        {"damaged_voter", plain, false,
         after_start({{Do::cut, 'B'}, {Do::damage, 'B'}, {Do::arm, '*'}, {Do::start, 'B'},
                      {Do::settle, '*'}})},
        {"restart_of_snapshots", snapshots, false,
         {{Do::arm, '*'}, {Do::start, '*'}, {Do::settle, '*'}}},
        {"segments_used_again", with_snapshots(2, 0, 1, 512), false,
         after_start({{Do::open, 'A'}, {Do::create, 'A', "/a", 100}, {Do::create, 'A', "/b", 100},
                      {Do::arm, '*'}, {Do::create, 'A', "/c", 100}, {Do::create, 'A', "/d", 100},
                      {Do::create, 'A', "/e", 100}})},
        {"torn_tail", with_sector(64), false,
         after_start({{Do::open, 'A'}, {Do::tear, 'B'}, {Do::create, 'A', "/a"}, {Do::arm, '*'},
                      {Do::start, 'B'}, {Do::settle, '*'}})},
    };
}

// Each of them twice: a flush is durable when it returns, or later.
std::vector<Workload> workloads() {
    std::vector<Workload> all = workloads_in_time();
    const std::size_t count = all.size();
    for (std::size_t i = 0; i < count; i++) {
        all.push_back(all[i]);
        all.back().name += ".late";
        all.back().tuning.is_late = true;
    }
    return all;
}

// -------------------------------------------------------------------------------------------------
// One run

class Run {
public:
    Run(const Workload& workload, const Base& base, const Cut& cut)
        : workload_(workload), cut_(cut), world_(workload.tuning, base, cut) {}

    World& world() { return world_; }
    u64 recovery_steps() const { return recovery_steps_; }  // of the victim's first start after it
    // RETURNS whether nothing is wrong.
    bool go() {
        for (at_ = 0; at_ < workload_.steps.size() && !world_.is_stopped(); at_++) {
            take(workload_.steps[at_]);
        }
        world_.run_until([this] { return world_.is_quiet(); }, coord::milliseconds(50));
        if (world_.is_interrupted()) at_ -= 1;  // it is done again
        world_.disarm();
        const bool is_cut = cut_.victim != 0;
        if (is_cut && !world_.is_interrupted()) {
            world_.checker.violate("P20", "the same run is another one: no power cut");
        }
        world_.go_on_after_cut();
        if (world_.checker.ok()) finish();
        return world_.checker.ok();
    }
    // To go on from: all at rest, and without power.
    Base leave() {
        for (at_ = 0; at_ < workload_.steps.size(); at_++) take(workload_.steps[at_]);
        return world_.leave();
    }

private:
    static constexpr u32 everybody = 0b1110;

    u32 id_of(char who) {
        COORD_ASSERT(who == '*' || leader_ != 0);
        if (who == 'L') return leader_;
        const u32 low = leader_ == 1 ? 2 : 1;
        const u32 high = leader_ == 3 ? 2 : 3;
        return who == 'A' ? low : high;
    }
    template <class Each>
    void each_of(char who, Each&& each) {
        for (u32 id = 1; id <= 3 && !world_.is_stopped(); id++) {
            if (who == '*' || id_of(who) == id) each(id);
        }
    }

    void take(const Step& step) {
        const std::string what = "step " + std::to_string(at_) + " of the workload";
        world_.note(what);
        const auto demand = [&](auto&& condition) { world_.demand(condition, what); };
        switch (step.what) {
            case Do::start: return each_of(step.who, [this](u32 id) { world_.start(id); });
            case Do::settle:
                demand([this] { return world_.are_equal(everybody) && world_.all_count(); });
                if (leader_ == 0) leader_ = world_.leader();
                return;
            case Do::arm: return world_.arm();
            case Do::open:
                world_.open_session(id_of(step.who));
                return demand([&] { return world_.is_answered(id_of(step.who)); });
            case Do::wait: return demand([this] { return world_.all_answered(); });
            case Do::cut_off: return world_.isolate(id_of(step.who));
            case Do::isolate:
                world_.isolate(id_of(step.who));
                world_.run_until([] { return false; }, coord::seconds(1));
                return;
            case Do::heal: return world_.heal();
            case Do::cut: return world_.cut_power(id_of(step.who));
            case Do::wipe: return world_.wipe(id_of(step.who));
            case Do::damage: return world_.damage(id_of(step.who));
            case Do::tear: return world_.tear(id_of(step.who));
            case Do::depose:
                return demand([this] {
                    return world_.leader() != 0 && world_.leader() != leader_;
                });
            default: break;
        }
        world_.ask(id_of(step.who), asked_by(step));
        if (step.what != Do::post) demand([&] { return world_.is_answered(id_of(step.who)); });
    }
    static bool is_request(const Step& step) {
        return step.what >= Do::create && step.what <= Do::post;
    }
    sim::Asked asked_by(const Step& step) const {
        sim::Asked asked;
        asked.path = step.path;
        const auto mode = step.what == Do::ephemeral ? coord::CreateMode::ephemeral
                                                     : coord::CreateMode::persistent;
        asked.call = sim::Call::create, asked.number = static_cast<std::int32_t>(mode);
        if (step.what == Do::set) asked.call = sim::Call::set;
        if (step.what == Do::remove) asked.call = sim::Call::remove;
        if (step.what == Do::close) asked.call = sim::Call::close;
        const bool has_data = step.what != Do::remove && step.what != Do::close;
        if (has_data) asked.data = Bytes(step.bytes, static_cast<char>('a' + at_));
        if (step.what == Do::set || step.what == Do::remove) asked.number = coord::any_version;
        return asked;
    }

    // ---- After the power cut, or at the end

    void finish() {
        if (cut_.victim != 0 && !cut_.is_all && cut_.way != 0) go_on();
        world_.heal();
        const u32 missing = cut_.way;
        if (missing != 0 && world_.node(missing).is_up()) world_.cut_power(missing);
        for (u32 id = 1; id <= 3; id++) {
            if (id != missing && !world_.node(id).is_up()) come_back(id);
        }
        const bool done = missing != 0 && serve_without(missing);
        if (done) finish_workload();
        if (missing != 0 && world_.checker.ok()) come_back(missing);
        settle("all of them in step");
        if (!done) finish_workload();
        write_at_all();
        if (world_.checker.ok()) world_.compare_all();
        restart_all();
    }
    void come_back(u32 id) {
        if (id != cut_.victim || recovery_steps_ > 0) return world_.start(id);
        recovery_steps_ = world_.start_again(id);
        if (!world_.is_interrupted()) return;
        world_.go_on_after_cut();
        world_.start(id);
    }
    // For a while, or until there is nothing more to come.
    void go_on() {
        const auto is_done = [this] { return world_.leader() != 0 && world_.all_answered(); };
        world_.run_until(is_done, coord::milliseconds(1500));
    }
    // RETURNS whether the two others serve. They must where their storages count.
    bool serve_without(u32 missing) {
        const u32 pair = everybody & ~(1u << missing);
        bool must = true;
        for (u32 id = 1; id <= 3; id++) must = must && (id == missing || world_.counts(id));
        const auto serve = [this, pair] { return world_.are_equal(pair); };
        if (must) return world_.demand(serve, "service without " + std::to_string(missing));
        return world_.run_until(serve, coord::seconds(1));
    }
    void settle(const std::string& what) {
        if (!world_.checker.ok()) return;
        world_.demand([this] { return world_.are_equal(everybody) && world_.all_count(); }, what);
    }
    void answers(const std::string& what) {
        world_.demand([this] { return world_.all_answered(); }, what);
    }
    // What was asked of a replica that has lost its power is asked for once more.
    void finish_workload() {
        answers("the answers to what had been asked");
        for (; at_ < workload_.steps.size() && world_.checker.ok(); at_++) {
            const Step& step = workload_.steps[at_];
            if (!is_request(step)) continue;
            const u32 id = world_.any_serving();
            if (id == 0) return world_.checker.violate("P16", "nobody serves");
            if (world_.node(id).session == SessionId{}) world_.open_session(id);
            answers("a session");
            if (world_.checker.ok()) world_.ask(id, asked_by(step));
            answers("the end of the workload");
        }
    }
    void write_at_all() {
        for (u32 id = 1; id <= 3 && world_.checker.ok(); id++) {
            if (world_.node(id).session == SessionId{}) world_.open_session(id);
        }
        answers("a session at each of them");
        for (u32 id = 1; id <= 3 && world_.checker.ok(); id++) {
            sim::Asked asked;
            asked.call = sim::Call::create, asked.path = "/end" + std::to_string(id);
            world_.ask(id, asked);
        }
        answers("a write at each of them");
        settle("a quiet end");
    }
    void restart_all() {
        for (u32 id = 1; id <= 3 && world_.checker.ok(); id++) world_.cut_power(id);
        for (u32 id = 1; id <= 3 && world_.checker.ok(); id++) world_.start(id);
        settle("all of them in step after a restart");
        if (world_.checker.ok()) world_.compare_all();
    }

    const Workload& workload_;
    const Cut cut_;
    World world_;
    std::size_t at_ = 0;   // of the workload's steps
    u32 leader_ = 0;
    u64 recovery_steps_ = 0;
};

// What all but the founding begin with: three that have something to say.
Base make_base(const Workload& workload) {
    if (workload.is_new) return Base{};
    const Workload before{"base", workload.tuning, true,
                          {{Do::start, '*'}, {Do::settle, '*'}, {Do::open, 'A'},
                           {Do::create, 'A', "/one", 500}, {Do::create, 'A', "/two", 500},
                           {Do::create, 'A', "/three", 500}, {Do::close, 'A'},
                           {Do::settle, '*'}}};
    const Base empty;
    Run run(before, empty, Cut{});
    const Base base = run.leave();
    for (const Bytes& each : base.checker.violations()) std::printf("base: %s\n", each.c_str());
    return base;
}

// -------------------------------------------------------------------------------------------------
// The enumeration

struct Options {
    u64 every = 1;
    std::string workload;
    std::string cut;
    bool is_twice = false;
    bool list = false;
};

// As it is printed, and read again.
std::string show(const Workload& workload, const Cut& cut) {
    return workload.name + ":" + std::to_string(cut.victim) + ":" +
           std::to_string(cut.step) + (cut.is_after ? ":after" : ":before") +
           (cut.is_all ? ":all" : ":one") + (cut.others_keep ? ":keep" : ":lose") + ":" +
           std::to_string(cut.choice) + ":" + std::to_string(cut.way) + ":" +
           std::to_string(cut.again) + (cut.again_keeps ? ":keep" : ":lose");
}

bool read_cut(const std::string& text, std::string& workload, Cut& cut) {
    std::vector<std::string> parts(1);
    for (const char c : text) {
        if (c == ':') parts.emplace_back();
        if (c != ':') parts.back() += c;
    }
    if (parts.size() != 10) return false;
    const auto number = [&](std::size_t i) { return std::strtoull(parts[i].c_str(), nullptr, 10); };
    workload = parts[0];
    cut.victim = static_cast<u32>(number(1)), cut.step = number(2);
    cut.is_after = parts[3] == "after", cut.is_all = parts[4] == "all";
    cut.others_keep = parts[5] == "keep";
    cut.choice = static_cast<std::size_t>(number(6)), cut.way = static_cast<u32>(number(7));
    cut.again = number(8), cut.again_keeps = parts[9] == "keep";
    return cut.victim <= 3 && cut.way <= 3;
}

std::string current;  // for the handler of SIGABRT: an assertion has tripped

extern "C" void on_abort(int) {
    std::printf("ASSERTION: --cut=\"%s\"\n", current.c_str());
    std::fflush(stdout);
    std::_Exit(1);
}

class Enumeration {
public:
    explicit Enumeration(const Options& options) : options_(options) {}

    int run() {
        const auto start = std::chrono::steady_clock::now();
        for (const Workload& workload : workloads()) {
            if (options_.workload.empty() || options_.workload == workload.name) cover(workload);
        }
        report(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
        const bool is_whole = options_.workload.empty() && !options_.list;
        for (std::size_t w = 1; w < durable_steps && is_whole; w++) {
            for (const auto& counts : cut_) {
                const bool is_there = counts[0][w] > 0 && counts[1][w] > 0;
                if (is_there || (options_.is_twice && &counts != cut_)) continue;
                std::printf("W%zu was never cut: %s\n", w, name_of_step(w));
                failures_ += 1;
                break;
            }
        }
        return failures_ == 0 ? 0 : 1;
    }

private:
    static constexpr u64 failures_max = 10;

    void cover(const Workload& workload) {
        const u64 runs = runs_, points = points_;
        const Base base = make_base(workload);
        Run dry(workload, base, Cut{});
        current = show(workload, Cut{});
        runs_ += 1;
        if (!dry.go() || !base.checker.ok()) return complain(workload, Cut{}, dry);
        std::string steps;
        for (u32 id = 1; id <= 3; id++) {
            const std::vector<u32>& all = dry.world().node(id).port.steps;
            steps += " " + std::to_string(all.size());
            for (u64 step = 1; step <= all.size() && !options_.list; step++) {
                for (const bool is_after : {false, true}) {
                    cut_at(workload, base, id, step, is_after, all[step - 1]);
                }
            }
        }
        std::printf("%-30s steps%s, points %llu, runs %llu\n", workload.name.c_str(), steps.c_str(),
                    number(points_ - points), number(runs_ - runs));
        std::fflush(stdout);
    }

    void cut_at(const Workload& workload, const Base& base, u32 id, u64 step, bool is_after,
                u32 what) {
        Cut cut;
        cut.victim = id, cut.step = step, cut.is_after = is_after;
        const std::size_t side = is_after ? 1 : 0;
        points_ += 1;
        const bool is_new = (what & ~seen_[side]) != 0;  // one of its kind is cut in any case
        seen_[side] |= what;
        if (options_.is_twice) {
            if (counter_++ % options_.every != 0 && !is_new) return;
            try_twice(workload, base, cut);
            return count(cut_[0][side], what);
        }
        bool is_done = try_ways(workload, base, cut, is_new);
        if (is_done) count(cut_[0][side], what);
        cut.is_all = true;
        is_done = try_ways(workload, base, cut, is_new);
        cut.others_keep = true;
        is_done = try_ways(workload, base, cut, false) || is_done;
        if (is_done) count(cut_[1][side], what);
    }
    static void count(u64 (&counts)[durable_steps], u32 what) {
        for (u32 w = 0; w < durable_steps; w++) counts[w] += what >> w & 1;
    }
    // RETURNS whether there was any: of a slice, each has another one of the choices.
    bool try_ways(const Workload& workload, const Base& base, Cut cut, bool is_new) {
        bool is_any = false;
        for (cut.way = 0; cut.way <= 3; cut.way++) {
            const bool is_slice = options_.every > 1;
            if (counter_++ % options_.every != 0 && !is_new) continue;
            is_any = true;
            std::size_t choices = 1;
            cut.choice = is_slice ? static_cast<std::size_t>(counter_ / options_.every) : 0;
            for (std::size_t i = 0; i < choices; i++, cut.choice++) {
                Run run(workload, base, cut);
                try_one(workload, cut, run);
                if (!is_slice) choices = run.world().choices();
            }
        }
        return is_any;
    }
    void try_twice(const Workload& workload, const Base& base, Cut cut) {
        std::size_t choices = 1;
        for (cut.choice = 0; cut.choice < choices; cut.choice++) {
            u64 steps = 0;
            for (cut.again = 0; cut.again <= steps; cut.again++) {
                for (const bool keeps : {false, true}) {
                    cut.again_keeps = keeps;
                    if (cut.again == 0 && keeps) continue;
                    Run run(workload, base, cut);
                    try_one(workload, cut, run);
                    choices = run.world().choices();
                    if (cut.again == 0) steps = run.recovery_steps();
                }
            }
        }
    }
    void try_one(const Workload& workload, const Cut& cut, Run& run) {
        if (failures_ >= failures_max) return;
        current = show(workload, cut);
        runs_ += 1;
        if (!run.go()) complain(workload, cut, run);
    }
    void complain(const Workload& workload, const Cut& cut, Run& run) {
        failures_ += 1;
        for (const Bytes& each : run.world().checker.violations()) {
            std::printf("%s\n", each.c_str());
        }
        std::printf("replay: sim_crash_points --cut=\"%s\"\n", show(workload, cut).c_str());
        std::fflush(stdout);
    }

    static unsigned long long number(u64 value) { return value; }
    void report(double seconds) {
        std::printf("\n%-52s one: before  after  all: before  after\n", "durable step");
        for (std::size_t w = 0; w < durable_steps; w++) {
            const std::string name = w == 0 ? "-" : "W" + std::to_string(w);
            std::printf("%-3s %-48s %11llu %6llu %12llu %6llu\n", name.c_str(), name_of_step(w),
                        number(cut_[0][0][w]), number(cut_[0][1][w]), number(cut_[1][0][w]),
                        number(cut_[1][1][w]));
        }
        std::printf("points %llu, runs %llu, failures %llu, %.1f s\n", number(points_),
                    number(runs_), number(failures_), seconds);
    }

    const Options options_;
    u64 cut_[2][2][durable_steps] = {};  // one or all; before or after; the durable step
    u32 seen_[2] = {0, 0};
    u64 counter_ = 0;
    u64 points_ = 0;
    u64 runs_ = 0;
    u64 failures_ = 0;
};

int replay(const std::string& text) {
    std::string name;
    Cut cut;
    if (!read_cut(text, name, cut)) return 2;
    for (const Workload& workload : workloads()) {
        if (name != workload.name) continue;
        const Base base = make_base(workload);
        Run run(workload, base, cut);
        const auto print = [](const std::string& line) { std::printf("%s\n", line.c_str()); };
        run.world().trace = print;
        for (u32 id = 1; id <= 3; id++) {
            run.world().node(id).port.trace = [id](const std::string& line) {
                std::printf("    disk %u %s\n", id, line.c_str());
            };
        }
        const bool is_well = run.go();
        for (const Bytes& each : run.world().checker.violations()) {
            std::printf("VIOLATION %s\n", each.c_str());
        }
        std::printf("%s; choices at the cut: %zu; %s\n", is_well ? "well" : "NOT WELL",
                    run.world().choices(), run.world().state().c_str());
        return is_well ? 0 : 1;
    }
    return 2;
}

bool read_options(int argc, char** argv, Options& options) {
    for (int i = 1; i < argc; i++) {
        const std::string argument = argv[i];
        const std::size_t equals = argument.find('=');
        const std::string key = argument.substr(0, equals);
        const std::string value = equals == std::string::npos ? "" : argument.substr(equals + 1);
        if (key == "--every") options.every = std::strtoull(value.c_str(), nullptr, 10);
        else if (key == "--workload") options.workload = value;
        else if (key == "--cut") options.cut = value;
        else if (key == "--twice") options.is_twice = true;
        else if (key == "--list") options.list = true;
        else return false;
    }
    return options.every >= 1;
}

}  // namespace crash

int main(int argc, char** argv) {
    crash::Options options;
    if (!crash::read_options(argc, argv, options)) {
        std::fprintf(stderr, "unknown or impossible option; see the head of crash_points.cpp\n");
        return 2;
    }
    std::signal(SIGABRT, crash::on_abort);
    if (!options.cut.empty()) return crash::replay(options.cut);
    crash::Enumeration enumeration(options);
    return enumeration.run();
}
