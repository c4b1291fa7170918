// ctest: --seeds=600 --first=1 -j2
// ctest: --seeds=100 --first=701 -j2
// ctest: --self-test
// ctest: --load --seeds=3
// ctest: --canary --shrink --seed=28300002
//
// Random simulations: an ensemble with clients and locks under drawn faults, every property of
// checkers.hpp checked all the way; then everything is healed, and has to come to life again; then
// every replica is restarted from its disk, and has to be what it was.
//
//   --seed=N     one seed, with what was drawn for it and the end of its trace; --trace: all of it;
//                --trace=FORM: in that form, and nothing else: text, mermaid, shiviz
//   --seeds=N    so many, from --first=N (1) on; --minutes=M stops after that time; -jN processes
//   --load       the load by which the speed is judged: ten clients, 100 writes and 75 reads a
//                second, no faults, every checker; --seeds=N runs of a minute, and how many
//                simulated seconds each makes a second of CPU
//   --self-test  each checker is fed flawed histories and has to find the flaw
//   --seed=N --shrink  makes a run that fails small, as long as it fails in the same way, and
//                prints which settings it needs, which faults, and which deeds of clients:
//                --seed=N --with=SETTING:VALUE,... --salt=N --faults=N,... --deeds=N,... runs it
//   --canary     a replica that crashes and a session that expires are called a violation: with
//                --shrink that has to be found to take one fault, and one deed

#include "../../examples/support/shiviz.hpp"
#include "checkers.hpp"
#include "profile.hpp"

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>

#if defined(__unix__) || defined(__APPLE__)
#    include <sys/wait.h>
#    include <unistd.h>
#    define SIM_HAS_FORK 1
#endif

#include "self_test.hpp"
#include "shrinking.hpp"
#include "wgl_test.hpp"

namespace sim {
namespace {

using coord::PeerId;
using coord::Session;

struct Totals {
    u64 seeds = 0;
    u64 failures = 0;
    u64 simulated_ms = 0;
    u64 writes = 0;
    u64 reads = 0;
    u64 events = 0;
    u64 elections = 0;
    u64 expiries = 0;
    u64 reaps = 0;
    u64 void_reaps = 0;
    u64 guarded = 0;
    u64 guards_lost = 0;
    u64 specials = 0;
    u64 taken_over = 0;
    u64 grants = 0;
    u64 reads_shared = 0;
    u64 downgrades = 0;
    u64 refusals = 0;
    u64 over_quota = 0;
    u64 silences = 0;
    u64 doubts = 0;
    u64 doubts_executed = 0;
    u64 messages = 0;
    u64 lost = 0;
    u64 repeated = 0;
    u64 delayed = 0;
    u64 damaged = 0;
    u64 forged = 0;
    u64 cuts = 0;
    u64 crashes = 0;
    u64 records_lost = 0;
    u64 wipes = 0;
    u64 admissions = 0;
    u64 observers = 0;
    u64 fed = 0;
    u64 relayed = 0;
    u64 newest_fed = 0;
    u64 reconfigs = 0;
    u64 attaches = 0;
    u64 locals = 0;
    u64 upgrades = 0;
    u64 upgrades_refused = 0;
    u64 throttled = 0;
    u64 pauses = 0;
    u64 stalls = 0;
    u64 installs = 0;
    u64 hints = 0;
    u64 hand_overs = 0;
    u64 recordings = 0;
    u64 hand_overs_failed = 0;
    u64 stops = 0;
    u64 leased = 0;
    u64 streamed = 0;
    u64 resumed = 0;
    u64 cut = 0;
    u64 judged = 0;
    u64 unknown = 0;
    u64 given_up = 0;
    u64 hash = 0;  // of all runs, whatever their order
    u64 steps = 0;
    u64 cpu_us = 0;

    void add(const Totals& o) {
        const auto* from = reinterpret_cast<const u64*>(&o);
        auto* to = reinterpret_cast<u64*>(this);
        for (std::size_t i = 0; i < sizeof(Totals) / sizeof(u64); i++) to[i] += from[i];
    }
};

class Run : private coord::ReplicaObserver {
public:
    Run(const Profile& profile, u64 seed, std::size_t trace_lines)
        : profile_(profile),
          options_(with_trace(profile.options, trace_lines)),
          sim_(options_),
          checker_(options_.replica.clock_drift_permille, options_.replica.limits.removals_max,
                   options_.replica.limits.sessions_max),
          seed_(seed),
          work_(coord::mix64(seed, 11)),
          faults_(coord::mix64(seed, 12)),
          hints_(coord::mix64(seed, 13)),
          hand_overs_(coord::mix64(seed, 15)),
          streams_(coord::mix64(seed, 14)) {
        sim_.set_observer(this);
        sim_.before_crash([this](PeerId id) {
            replay(id.value);
            checker_.committed(sim_.replica(id).status().committed);
            leased_ += sim_.replica(id).leader_counters().syncs_by_lease;
            relayed_ += sim_.replica(id).leader_counters().requests_relayed;
            forget_clients(id.value);
            hint_at_crash(id.value);
        });
        for (u32 home = 1; home <= profile_.replicas(); home++) {
            const u32 each = profile_.clients > 0 ? 0 : profile_.clients_each;
            for (u32 i = 0; i < each; i++) add_client(home, false);
            if (home <= profile_.locks) add_client(home, true);
        }
        for (u32 i = 0; i < profile_.clients; i++) add_client(i % profile_.replicas() + 1, false);
        readers_ = std::vector<Reader>(profile_.readers);
    }
    ~Run() override { clients_.clear(); }

    const Checker& checker() const { return checker_; }
    const coord::Simulation& simulation() const { return sim_; }
    u64 installs() const { return installs_; }
    u64 wipes() const { return wipes_; }
    u64 admissions() const { return admissions_; }
    u64 attaches() const { return attaches_; }
    u64 locals() const { return locals_; }
    u64 resumed() const { return resumed_; }
    const std::vector<u64>& faults() const { return faults_made_; }
    const std::vector<u64>& deeds() const { return deeds_; }
    u64 cut() const { return cut_; }
    u64 judged() const { return judged_; }
    u64 unknown() const { return unknown_; }
    u64 given_up() const { return given_up_; }
    u64 handed_over() const { return handed_over_; }
    u64 recordings() const { return recordings_; }
    u64 fed() const { return fed_; }  // times that an observer came in step by a feeder
    u64 newest_fed() const { return newest_fed_; }  // linearizable reads, and syncs, at such a one
    u64 relayed() {
        u64 sum = relayed_;
        for (u32 id = 1; id <= profile_.replicas(); id++) {
            if (sim_.is_running(id)) sum += sim_.replica(id).leader_counters().requests_relayed;
        }
        return sum;
    }
    u64 hand_overs_failed() const { return hand_overs_failed_; }
    u64 stops() const { return stops_; }
    // Answered under a lease, by all that ever led.
    u64 leased() {
        u64 all = leased_;
        for (u32 id = 1; id <= profile_.replicas(); id++) {
            if (sim_.is_running(id)) all += sim_.replica(id).leader_counters().syncs_by_lease;
        }
        return all;
    }

    bool go() {
        sim_.set_network(profile_.network);
        sim_.set_disk(profile_.disk);
        for (std::size_t i = 0; i < clients_.size(); i++) tick(i);
        for (std::size_t i = 0; i < readers_.size(); i++) read_on(i);
        schedule_fault();
        if (profile_.hints && profile_.replicas() > 1) schedule_hint();
        if (profile_.hand_overs) schedule_hand_over();
        if (profile_.rolls) roll_later(1);
        pass(profile_.faults_for);
        recover();
        come_to_rest();
        restart_all();
        return checker_.ok();
    }

private:
    struct Client {
        u32 home = 1;
        bool locker = false;
        u64 generation = 0;  // of the replica's start: what comes from an older one is void
        bool opening = false;
        bool leaving = false;  // has asked for close
        bool was_local = false;
        bool is_super = false;  // unless somebody attaches it
        bool is_known = false;  // to those who attach sessions
        Time asked_at;
        std::optional<Session> session;
        u64 holder_number = 0;          // how often it had been attached when it came here
        sim::Holder who() const { return sim::Holder(session->id(), holder_number); }
        std::size_t waiting = 0;  // for answers
        u64 ticks = 0;
        std::map<Bytes, std::int32_t> versions;
        Bytes parent;              // of what it has listed last
        std::vector<Bytes> names;  // its children, unless it is the root
        std::unique_ptr<coord::Lock> lock;             // or
        std::unique_ptr<coord::ReadWriteLock> shared;  // and which way it is held:
        coord::Access access = coord::Access::write;
        bool downgrading = false;
        Bytes lock_path;
        coord::Grant grant;  // the last one
        u64 holder = 0;  // another number for each grant asked for
        bool contending = false;
        bool has_lock = false;
    };

    // Reads one stream all through the run, at one replica after the other.
    struct Reader {
        enum class Way : std::uint8_t { asks, is_told, is_called };
        Way way = Way::asks;
        Bytes path;  // empty: it has not begun
        coord::ChangePosition from;
        std::optional<coord::Subscription> stream;
        u32 home = 0;
        u64 start = 0;  // of its home
    };

    static coord::SimulationOptions with_trace(coord::SimulationOptions options,
                                               std::size_t lines) {
        options.trace_lines = lines;
        return options;
    }
    void add_client(u32 home, bool locker) {
        clients_.push_back(std::make_unique<Client>());
        clients_.back()->home = home;
        clients_.back()->locker = locker;
    }
    Rng& work() { return work_; }
    Duration any_ms(Rng& rng, u64 low, u64 high) {
        return milliseconds(static_cast<std::int64_t>(rng.between(low, high)));
    }

    // ---- What replicas tell

    void on_role(PeerId id, coord::Role role, PeerId, u32) override {
        if (role == coord::Role::failed) failed_ = id;
    }
    // P6. Who would still answer under a lease, by its own clock of now, is the only leader.
    void inspect_leases(PeerId established, u32 epoch) {
        for (u32 id = 1; id <= profile_.replicas(); id++) {
            if (id == established.value || !sim_.is_running(id)) continue;
            const coord::Replica& other = sim_.replica(id);
            const coord::ReplicaStatus status = other.status();
            const bool is_left = other.now() + status.lease_left > sim_.clock(id);
            if (!is_left || status.lease_left == Duration{} || status.epoch >= epoch) continue;
            checker_.violate("P6", "epoch " + std::to_string(epoch) + " has begun, and " +
                                       std::to_string(id) + " has a lease of one before");
        }
    }
    void on_established(PeerId id, u32 epoch, Zxid initial) override {
        inspect_leases(id, epoch);
        checker_.established(id.value, starts_[id.value], epoch, initial);
    }
    void on_applied(PeerId id, const Txn& txn, const coord::Outcome* outcome, u64 digest) override {
        if (options_.trace_lines > 0 && txn.zxid > checker_.model().frontier()) {
            static const char* const names[] = {"",    "open",  "close", "create", "remove", "set",
                                                "admit", "multi", "check", "reap", "attach",
                                                "silence", "set_acl", "auth", "reconfig"};
            const Fields fields = fields_of(txn);
            sim_.note("entry " + show(txn.zxid) + ": " + names[static_cast<std::size_t>(txn.op)] +
                      " of session " + show(Zxid{txn.session.value}) + " cxid " +
                      std::to_string(txn.cxid) + " " + fields.path +
                      (fields.expired ? " (expired)" : ""));
        }
        const bool is_admit = txn.op == coord::OpCode::admit;
        const bool is_first = txn.zxid > checker_.model().frontier();
        if ((is_admit || txn.op == coord::OpCode::reconfig) && is_first) {
            admissions_ += is_admit ? 1u : 0u;
            if (!admitted_.apply(txn)) checker_.violate("P3", "an admit that is none");
        }
        checker_.applied(id.value, txn, outcome, digest, sim_.now());
    }
    void on_installed(PeerId id, Zxid zxid, u64 digest) override {
        installs_ += 1;
        checker_.installed(id.value, zxid, digest);
    }

    void on_log(PeerId, const coord::LogLine& line) override {
        const BytesView done = "looks for a leader: it has handed over";
        const bool is_fed = line.text.find(", fed by ") != coord::BytesView::npos;
        fed_ += line.code == coord::LogCode::in_step && is_fed ? 1u : 0u;
        handed_over_ += line.code == coord::LogCode::looks && line.text == done ? 1u : 0u;
        hand_overs_failed_ += line.code == coord::LogCode::hand_over_failed ? 1u : 0u;
    }

    // P31. Where the recording is full, what there is of it does.
    void replay(u32 id) {
        if (options_.recording_bytes == 0 || !sim_.is_running(id) || !checker_.ok()) return;
        coord::Recorder& recorder = sim_.recorder(id);
        Bytes recording;
        recorder.take(recording);
        recordings_ += 1;
        coord::Replay replay(recording, options_.replica.ensemble_keys);
        if (replay.error() == coord::Errc::ok) replay.run();
        const Bytes which = "replica " + std::to_string(id);
        const BytesView ended = recorder.ended();
        if (replay.error() != coord::Errc::ok || replay.bytes_left() > 0) {
            checker_.violate("P31", which + ": its recording is damaged");
        } else if (replay.differs_at() != 0) {
            checker_.violate("P31", which + ": its recording differs at call " +
                                        std::to_string(replay.differs_at()) + ": " + replay.text());
        } else if (!ended.empty() && ended != "it is full") {
            checker_.violate("P31", which + ": the recording has ended: " + Bytes(ended));
        } else if (ended.empty() &&
                   replay.replica().state_json() != sim_.replica(id).state_json()) {
            checker_.violate("P31", which + ": replayed it is another one");
        }
    }

    // After each step: what is cheap. Now and then: what is not.
    bool inspect() {
        steps_ += 1;
        const u64 changes = sim_.counters().polls + sim_.counters().restarts;
        // Nothing but a poll or a start moves these.
        if (changes != changes_) inspect_epochs();
        const bool are_there = profile_.observers > 0 && !profile_.churn;
        if (changes != changes_ && are_there) inspect_observers();
        changes_ = changes;
        const bool is_hit = sim_.counters().crashes > 0 && checker_.expiries() > 0;
        if (profile_.canary && is_hit && !healing_) {
            checker_.violate("P0", "a replica has crashed, and a session has expired");
        }
        if (failed_ != PeerId{} && sim_.is_running(failed_)) {
            checker_.violate("P19", "replica " + std::to_string(failed_.value) +
                                        " failed: " + sim_.replica(failed_).status().reason);
        }
        if (steps_ % 1024 == 0) {
            const coord::SimulationCounters& c = sim_.counters();
            // For each snapshot that is due a replica wants a poll at once, to begin it.
            const u64 snapshots = checker_.entries() * profile_.replicas() /
                                  (std::max)(options_.replica.snapshot_every_entries, 1u);
            if (c.polls_wanted > c.polls / 4 + 2000 + snapshots) {
                checker_.violate("P18", "the replicas spin: " + std::to_string(c.polls_wanted) +
                                            " of " + std::to_string(c.polls) +
                                            " polls asked for another" + reasons());
            }
            const u32 id = static_cast<u32>(steps_ / 16384 % profile_.replicas()) + 1;
            if (sim_.is_running(id) && steps_ % 16384 == 0) {  // and at the end, all of them
                sim_.replica(id).audit();
                checker_.whole_state(id, sim_.replica(id).machine());
            }
        }
        return checker_.ok();
    }

    // This is done after every poll, and they hardly ever change.
    void inspect_epochs() {
        const u64 starts = sim_.counters().crashes + sim_.counters().restarts;
        if (starts != listed_at_) list_epochs();
        listed_at_ = starts;
        for (SeenEpochs& seen : epochs_) {
            const coord::Log::Epochs& now = *seen.durable;
            if (now.accepted == seen.accepted && now.current == seen.current) continue;
            seen.accepted = now.accepted, seen.current = now.current;
            checker_.epochs(seen.id, now.accepted, now.current);
        }
    }
    void inspect_observers() {
        for (u32 id = 1; id <= profile_.replicas(); id++) {
            if (!sim_.is_running(id)) continue;
            const coord::ReplicaStatus status = sim_.replica(id).status();
            checker_.committed(status.committed);
            if (id > profile_.voters) checker_.observes(id, status.role, status.last);
        }
    }
    void list_epochs() {
        epochs_.clear();
        for (u32 id = 1; id <= profile_.replicas(); id++) {
            if (!sim_.is_running(id)) continue;
            const coord::Log::Epochs& now = sim_.replica(id).log().durable_epochs();
            epochs_.push_back({id, &now, now.accepted, now.current});
            checker_.epochs(id, now.accepted, now.current);
        }
    }

    void pass(Duration duration) {
        const Time end = sim_.now() + duration;
        (void)wait([this, end] { return sim_.now() >= end; }, duration);
    }
    // RETURNS false where the condition did not come about in time, or something is wrong.
    template <class Condition>
    bool wait(Condition&& condition, Duration limit) {
        bool reached = false;
        (void)sim_.run_until([&] { return !inspect() || (reached = condition()); }, limit);
        return checker_.ok() && reached;
    }
    template <class Condition>
    void demand(Condition&& condition, Duration limit, const Bytes& what) {
        if (!checker_.ok() || wait(condition, limit) || !checker_.ok()) return;
        checker_.violate("P16", what + " did not come about in " +
                                    std::to_string(limit.ns / 1000000) + " ms" + reasons());
    }
    Bytes reasons() {
        Bytes all;
        for (u32 id = 1; id <= profile_.replicas(); id++) {
            if (!sim_.is_running(id)) continue;
            const coord::ReplicaStatus s = sim_.replica(id).status();
            all += "; " + std::to_string(id) + " is " + coord::name(s.role) +
                   (s.serving ? " and serves" : "") + ", leader " + std::to_string(s.leader.value) +
                   ", epoch " + std::to_string(s.epoch) + "/" + std::to_string(s.accepted_epoch) +
                   ", last " + show(s.last) + ", durable " + show(s.durable) + ", committed " +
                   show(s.committed) + ", applied " + show(s.applied) + ", " + s.reason;
        }
        return all;
    }

    // ---- Clients

    static constexpr u64 deeds_each = 1000000;

    static bool has(const std::vector<u64>& all, u64 one) {
        return std::binary_search(all.begin(), all.end(), one);
    }
    // What a client does when its time has come is a deed.
    bool is_to_be_done(u64 deed) {
        if (!profile_.are_all_deeds && !has(profile_.deeds, deed)) return false;
        deeds_.push_back(deed);
        return true;
    }

    void tick(std::size_t slot) {
        Client& client = *clients_[slot];
        const u64 deed = slot * deeds_each + client.ticks++;
        if (profile_.salt != 0) work_ = Rng(coord::mix64(seed_, coord::mix64(profile_.salt, deed)));
        if (!resting_)
            sim_.after(any_ms(work(), 1, profile_.op_gap_ms * 2), [this, slot] { tick(slot); });
        if (!sim_.is_running(client.home) || sim_.is_paused(client.home) || resting_) return;
        if (client.session) {
            sample(client);
            leave_if_over(client);
        }
        if (!is_to_be_done(deed)) return;
        if (!client.session) {
            open(slot);
        } else if (client.leaving) {
            return;
        } else if (client.locker) {
            use_lock(slot);
        } else if (client.waiting < 8) {
            ask_something(slot);
        }
    }

    void sample(Client& client) {
        const Time certain = client.session->certain_until();
        if (certain != Time{}) {
            checker_.alive_until(client.who(), sim_.when(client.home, certain));
        }
        if (!client.has_lock) return;
        with_lock(client, [&](auto& lock) {
            if (lock.certain_until() == Time{}) return;
            checker_.held_until(client.lock_path, client.holder,
                                sim_.when(client.home, lock.certain_until()), sim_.now());
        });
    }

    void leave_if_over(Client& client) {
        const coord::SessionState state = client.session->state();
        if (state == coord::SessionState::expired) checker_.expired(client.who());
        if (state == coord::SessionState::moved) checker_.moved(client.who());
        const bool over = state != coord::SessionState::connected &&
                          state != coord::SessionState::suspended;
        if (!over || client.waiting > 0) return;
        drop(client);
    }

    void drop(Client& client) {
        client.lock.reset(), client.shared.reset();
        client.grant = coord::Grant{};
        if (client.session) checker_.dropped(client.who());
        client.session.reset();
        client.generation += 1;
        client.opening = client.leaving = client.contending = client.has_lock = false;
        client.downgrading = false;
        client.was_local = client.is_known = client.is_super = false;
        client.waiting = 0;
        client.versions.clear(), client.names.clear();
    }

    void forget_clients(u32 home) {
        for (const auto& client : clients_) {
            if (client->home != home) continue;
            if (client->session) sample(*client);
            drop(*client);
        }
    }

    void open(std::size_t slot) {
        Client& client = *clients_[slot];
        if (client.opening) return;
        client.asked_at = sim_.now();
        if (!client.locker && !known_.empty() && work().chance(500)) return attach(slot);
        client.opening = true;
        coord::SessionOptions options;
        options.timeout = any_ms(work(), profile_.timeout_min_ms, profile_.timeout_max_ms);
        options.is_local =
            profile_.locals_permille > 0 && work().chance(profile_.locals_permille);
        client.was_local = options.is_local;
        const u64 generation = client.generation;
        Session::open(sim_.replica(client.home), options,
                      [this, slot, generation](coord::Result<Session> opened) {
                          Client& own = *clients_[slot];
                          if (own.generation != generation) return;
                          own.opening = false;
                          end_open(own, opened);
                      });
    }
    void end_open(Client& own, const coord::Result<Session>& opened) {
        if (!opened) {
            const bool is_full = opened.error() == Errc::too_many && profile_.few_sessions;
            if (is_full && !own.was_local) return;
            return checker_.violate("P1",
                                    Bytes("open fails: ") + coord::name(opened.error()));
        }
        own.session = *opened, own.holder_number = 0;
        const Zxid here = sim_.replica(own.home).machine().applied();
        if (own.was_local) {
            locals_ += 1;
            checker_.opened_local(opened->id(), own.home, own.asked_at, here, own.locker);
        } else {
            checker_.opened(opened->id(), own.home, own.asked_at, own.locker);
            if (!own.locker) remember(own);
        }
    }

    void remember(Client& client) {
        client.is_known = true;
        known_.push_back({client.session->id(), client.session->password()});
        if (known_.size() > 16) known_.erase(known_.begin());
    }
    // One that was local can be attached from its upgrade on.
    void remember_upgraded(Client& client) {
        if (!client.was_local || client.is_known || client.locker) return;
        if (client.session && checker_.is_in_log(client.session->id()) &&
            !client.session->is_local() &&
            client.session->state() <= coord::SessionState::suspended) {
            remember(client);
        }
    }

    // Takes over a session that some client has, or had, here or elsewhere, or before a crash.
    void attach(std::size_t slot) {
        Client& client = *clients_[slot];
        const auto [id, right] = known_[static_cast<std::size_t>(work().below(known_.size()))];
        client.opening = true;
        checker_.attaching(id);
        coord::SessionPassword password = right;
        const bool is_wrong = work().chance(50);
        if (is_wrong) password.low += 1;
        const u64 generation = client.generation;
        Session::attach(sim_.replica(client.home), id, password,
                        [this, slot, generation, is_wrong,
                         id = id](const coord::Result<Session>& attached) {
                            Client& own = *clients_[slot];
                            if (own.generation != generation) return;
                            own.opening = false;
                            end_attach(own, id, is_wrong, attached);
                        });
    }
    void end_attach(Client& own, SessionId id, bool is_wrong,
                    const coord::Result<Session>& attached) {
        if (!attached && attached.error() == Errc::session_expired) return checker_.expired(id);
        if (is_wrong != (attached.error() == Errc::auth_failed)) {
            return checker_.violate("P9", Bytes("an attach with the wrong password, or the right") +
                                              " one, ends with " + coord::name(attached.error()));
        }
        if (is_wrong || attached.error() == Errc::session_moved) return;
        if (!attached) {
            return checker_.violate("P1",
                                    Bytes("attach fails: ") + coord::name(attached.error()));
        }
        if (attached->state() > coord::SessionState::suspended) return;  // over in the same poll
        const coord::Machine& machine = sim_.replica(own.home).machine();
        own.holder_number = machine.find_session(id)->cxid >> coord::cxid_bits;
        own.session = *attached;
        attaches_ += 1;
        checker_.opened(sim::Holder(id, own.holder_number), own.home, own.asked_at);
    }

    // Everything a callback needs to find its way back.
    struct Question {
        std::size_t slot;
        u64 generation;
        sim::Holder id;
        std::size_t number;
    };
    struct Ticket {  // small, so that a callback with it needs no memory of its own
        Run* run;
        std::size_t question;
        const Question* operator->() const { return &run->questions_[question]; }
    };

    static void answer(const Ticket& ticket, const Told& told) {
        Run& run = *ticket.run;
        Client& client = *run.clients_[ticket->slot];
        const Zxid here = run.sim_.replica(client.home).machine().applied();
        run.checker_.answered(ticket->id, ticket->number, told, here);
        const bool is_in_doubt = told.error == Errc::outcome_unknown;
        const bool is_listed =
            is_in_doubt && !run.sim_.replica(client.home)
                                .unresolved(ticket->id.session, ticket->id.holding)
                                .empty();
        if (is_in_doubt != is_listed) run.checker_.violate("P27", "in doubt, and not listed");
        if (client.generation != ticket->generation) return;
        client.waiting -= 1;
        run.remember_upgraded(client);
    }

    Ticket ask(std::size_t slot, const Asked& asked) {
        see_throttled(slot);
        Client& client = *clients_[slot];
        client.waiting += 1;
        const bool is_linearizable = asked.least == coord::newest || asked.call == Call::sync;
        if (profile_.feeders > 0 && is_linearizable) {
            newest_fed_ += sim_.replica(client.home).status().feeder != PeerId{} ? 1u : 0u;
        }
        const sim::Holder id = client.who();
        questions_.push_back({slot, client.generation, id, checker_.called(id, asked)});
        is_asked_ = true;
        return {this, questions_.size() - 1};
    }
    // Whether the question before was throttled: then its number is the next one's.
    void see_throttled(std::size_t slot) {
        const u64 count = sim_.replica(clients_[slot]->home).counters().requests_throttled;
        const bool is_throttled = is_asked_ && count != throttled_before_;
        if (is_throttled) checker_.throttled(questions_.back().id, questions_.back().number);
        is_asked_ = false, throttled_before_ = count;
    }
    // Where twice as many wait even its turn has no room, and an answer would be out of turn.
    bool may_ask(std::size_t slot) const {
        u64 waiting = 0;
        for (const auto& client : clients_) {
            if (client->home == clients_[slot]->home) waiting += static_cast<u64>(client->waiting);
        }
        return profile_.waiting_max == 0 || waiting + 3 <= u64{profile_.waiting_max} * 2;
    }
    void ask_something(std::size_t slot) {
        if (!may_ask(slot)) return;
        see_throttled(slot);
        ask_one_thing(slot);
        see_throttled(slot);
    }

    Bytes any_path() {
        static const char* const parents[] = {"/a", "/b", "/a/c"};
        const Bytes parent = parents[work().below(3)];
        const u64 kind = work().below(8);
        if (kind == 0) return parent;
        return parent + "/" + std::to_string(work().below(5));
    }
    // Often one that the client has seen.
    Bytes any_known_path(const Client& client) {
        if (client.names.empty() || work().chance(500)) return any_path();
        return client.parent + "/" + client.names[work().below(client.names.size())];
    }
    Bytes any_data() {
        Bytes data = std::to_string(++payloads_);
        const u64 room = (std::min)(std::size_t{3000}, profile_.options.message_bytes_max - 500);
        if (work().chance(50)) data.append(work().below(room), 'x');
        return data;
    }

    // In its place, now and then.
    BytesView maybe_null(Asked& asked) {
        asked.is_null = work().chance(100);
        if (asked.is_null) asked.data.clear();
        return asked.is_null ? coord::null_data : BytesView(asked.data);
    }

    // Who some client may be; seldom one that is never refused.
    Bytes any_credential() {
        if (work().chance(40)) return "super:secret";
        return "user" + std::to_string(work().below(3)) + ":password";
    }
    // Mostly one that leaves somebody something to do.
    coord::Acl any_acl() {
        namespace permission = coord::permission;
        const Bytes user = coord::digest_id("user" + std::to_string(work().below(3)) + ":password");
        const auto some = static_cast<u32>(work().below(32));
        switch (work().below(8)) {
            case 0: return coord::creator_acl();
            case 1: return coord::Acl(permission::all, "digest", user);
            case 2: return coord::read_only_acl().add(permission::all, "auth", "");
            case 3: return coord::Acl(some, "world", "anyone").add(permission::all, "digest", user);
            case 4: return coord::Acl(permission::all & ~1u, "world", "anyone").add(1, "auth", "");
            default: return coord::open_acl();
        }
    }
    coord::Acl maybe_acl() {
        return profile_.acls && work().chance(250) ? any_acl() : coord::Acl();
    }

    void ask_add_auth(std::size_t slot, const Bytes& credential) {
        Client& client = *clients_[slot];
        Asked asked{Call::add_auth, {}, {}, 0, false};
        if (credential == "super:secret") asked.data.assign(coord::super_user);
        asked.data += coord::Acl(0, "digest", coord::digest_id(credential)).bytes();
        const Ticket ticket = ask(slot, asked);
        client.session->add_auth("digest", credential, [ticket](coord::Result<void> r) {
            answer(ticket, {r.error(), {}, {}, {}, {}, {}});
        });
    }

    void ask_set_acl(std::size_t slot) {
        Client& client = *clients_[slot];
        Asked asked{Call::set_acl, any_known_path(client), {}, 0, false};
        const coord::Acl acl = any_acl();
        asked.acl = acl.bytes();
        asked.number = work().chance(800) ? coord::any_version
                                          : static_cast<std::int32_t>(work().below(3));
        const Ticket ticket = ask(slot, asked);
        client.session->set_acl(asked.path, acl, asked.number, [ticket](coord::Result<Stat> r) {
            Told told;
            told.error = r.error();
            if (r) told.stat = *r;
            answer(ticket, told);
        });
    }

    void ask_get_acl(std::size_t slot) {
        Client& client = *clients_[slot];
        const Asked asked{Call::get_acl, any_known_path(client), {}, 0, false};
        const Ticket ticket = ask(slot, asked);
        client.session->get_acl(asked.path, [ticket](coord::Result<coord::NodeAcl> r) {
            Told told;
            told.error = r.error();
            if (r) told.stat = r->stat, told.acl = r->acl.bytes();
            answer(ticket, told);
        });
    }

    // Some of the replicas, and seldom who is none; at times with weights and groups.
    coord::Member any_member() {
        coord::Member member;
        const u64 ids = profile_.replicas() + (work().chance(50) ? 1 : 0);
        member.id = PeerId{static_cast<u32>(work().between(1, ids))};
        member.votes = work().chance(750);
        if (work().chance(100)) member.weight = static_cast<u32>(work().below(4));
        if (work().chance(100)) member.group = static_cast<u32>(work().below(3));
        if (work().chance(200)) member.address = "h" + std::to_string(++payloads_) + ":1:2";
        return member;
    }
    coord::Reconfig any_reconfig() {
        coord::Reconfig change;
        if (work().chance(300)) {
            std::map<u32, coord::Member> members;
            for (u64 i = work().between(1, profile_.replicas()); i > 0; i--) {
                const coord::Member member = any_member();
                members[member.id.value] = member;
            }
            for (const auto& [id, member] : members) change.members.push_back(member);
        } else if (work().chance(500)) {
            change.joining.push_back(any_member());
        }
        const bool is_empty = change.members.empty() && change.joining.empty();
        if (is_empty || (change.members.empty() && work().chance(400))) {
            change.leaving.push_back(any_member().id);
        }
        if (work().chance(30)) change.version = Zxid{1};
        return change;
    }
    void ask_reconfig(std::size_t slot) {
        Client& client = *clients_[slot];
        if (!client.is_super) ask_to_be_super(slot);
        Asked asked{Call::reconfig, {}, {}, 0, false};
        const coord::Reconfig change = any_reconfig();
        coord::encode_reconfig(change, asked.data);
        const Ticket ticket = ask(slot, asked);
        changes_asked_[ticket.question] = sim_.now();
        client.session->reconfig(change, [ticket](coord::Result<coord::Data> r) {
            if (r.error() != Errc::outcome_unknown) ticket.run->end_change(ticket.question);
            Told told;
            told.error = r.error();
            if (r) told.data = r->bytes, told.stat = r->stat, told.zxid = r->zxid;
            answer(ticket, told);
        });
    }
    void end_change(std::size_t question) { changes_asked_.erase(question); }
    // One that was never answered may still be on its way, from a replica that has died.
    bool may_change() const {
        for (const auto& [question, asked_at] : changes_asked_) {
            if (sim_.now() - asked_at < coord::seconds(20)) return true;
        }
        return false;
    }
    void ask_to_be_super(std::size_t slot) {
        if (work().chance(100)) return;
        clients_[slot]->is_super = true;
        ask_add_auth(slot, "super:secret");
    }

    void ask_about_access(std::size_t slot) {
        const u64 kind = work().below(10);
        if (kind < 3) return ask_add_auth(slot, any_credential());
        if (kind < 8) return ask_set_acl(slot);
        ask_get_acl(slot);
    }

    void ask_one_thing(std::size_t slot) {
        Client& client = *clients_[slot];
        if (profile_.acls && work().chance(120)) return ask_about_access(slot);
        if (profile_.quotas && work().chance(50)) return ask_quota(slot);
        if (profile_.churn && work().chance(25)) return ask_reconfig(slot);
        if (profile_.registers > 0 && work().chance(200)) return ask_register(slot);
        const bool only_reads = client.was_local && client.session->is_local() &&
                                work().chance(850);
        const u64 choice = only_reads ? work().between(570, 999) : work().below(1000);
        if (choice < 60) {
            ask_multi(slot);
        } else if (choice < 110 && !profile_.only_plain_reads) {
            ask_part(slot);
        } else if (choice < 240) {
            ask_create(slot);
        } else if (choice < 380) {
            ask_set(slot);
        } else if (choice < 570) {
            ask_remove(slot);
        } else if (choice < 700) {
            ask_exists(slot);
        } else if (choice < 840) {
            ask_get(slot);
        } else if (choice < 900 || (choice < 940 && profile_.only_plain_reads)) {
            ask_children(slot);
        } else if (choice < 940) {
            ask_read(slot);
        } else if (choice < 955) {
            ask_add_watch(slot);
        } else if (choice < 963) {
            ask_remove_watches(slot);
        } else if (choice < 995) {
            ask_sync(slot);
            ask_get(slot);
        } else {
            const Ticket ticket = ask(slot, {Call::close, {}, {}, 0, false});
            client.leaving = true;
            client.session->close([ticket](coord::Result<void> r) {
                answer(ticket, {r.error(), {}, {}, {}, {}, {}});
            });
        }
    }

    coord::CreateMode any_mode() { return static_cast<coord::CreateMode>(work().below(7)); }
    // In ms; 0 where the mode has none.
    std::int64_t any_ttl(coord::CreateMode mode) {
        if (!coord::has_ttl(mode)) return 0;
        const u64 most = work().chance(200) ? u64{1} << work().below(40) : 3000;
        return static_cast<std::int64_t>(work().between(1, most));
    }

    void ask_create(std::size_t slot) {
        Client& client = *clients_[slot];
        const auto mode = any_mode();
        Asked asked{Call::create, any_path(), any_data(), static_cast<std::int32_t>(mode), false};
        asked.ttl_ms = any_ttl(mode);
        if (coord::is_sequential(mode))
            asked.path = Bytes(coord::parent_path(asked.path)) == "/" ? asked.path + "/s-"
                                                                      : asked.path + "s-";
        const BytesView data = maybe_null(asked);
        const coord::Acl acl = maybe_acl();
        asked.acl = acl.bytes();
        const Ticket ticket = ask(slot, asked);
        client.session->create(asked.path, data, mode, milliseconds(asked.ttl_ms), acl,
                               [ticket](coord::Result<coord::Created> r) {
                                   Told told;
                                   told.error = r.error();
                                   if (r) told.path = r->path, told.stat = r->stat;
                                   answer(ticket, told);
                               });
    }

    std::int32_t any_version_of(Client& client, const Bytes& path) {
        const auto known = client.versions.find(path);
        if (work().chance(400)) return coord::any_version;
        if (known != client.versions.end() && work().chance(800)) return known->second;
        return static_cast<std::int32_t>(work().below(3));
    }

    void ask_set(std::size_t slot) {
        Client& client = *clients_[slot];
        Asked asked{Call::set, any_known_path(client), any_data(), 0, false};
        asked.number = any_version_of(client, asked.path);
        const BytesView data = maybe_null(asked);
        const Ticket ticket = ask(slot, asked);
        client.session->set(asked.path, data, asked.number, [ticket](coord::Result<Stat> r) {
            Told told;
            told.error = r.error();
            if (r) told.stat = *r;
            answer(ticket, told);
        });
    }

    void ask_remove(std::size_t slot) {
        Client& client = *clients_[slot];
        Asked asked{Call::remove, any_known_path(client), {}, 0, false};
        asked.number = work().chance(600) ? coord::any_version : any_version_of(client, asked.path);
        const Ticket ticket = ask(slot, asked);
        client.session->remove(asked.path, asked.number, [ticket](coord::Result<void> r) {
            answer(ticket, {r.error(), {}, {}, {}, {}, {}});
        });
    }

    // A part that only a multi has, mostly of what is so at this moment.
    coord::Op any_special(const Bytes& path, Bytes& value) {
        using coord::Op;
        const sim::Model& model = checker_.model();
        const sim::Model::Version* const now = model.at(path, model.frontier());
        const bool is_there = now != nullptr && now->present;
        const Stat stat = is_there ? now->stat : Stat{};
        const u64 off = work().chance(100) ? 1 : 0;
        const bool is_small = is_there && now->data.size() < 100;  // parts share one message
        const bool is_compared = is_small && work().chance(850);
        const auto mode = work().chance(400) ? coord::CreateMode::ephemeral : any_plain_mode();
        const auto parents = work().chance(200) ? coord::CreateMode::container
                                                : coord::CreateMode::persistent;
        switch (work().below(11)) {
            case 0: return Op::absent(path);
            case 1: return Op::has_czxid(path, Zxid{stat.czxid.value + off});
            case 2: return Op::has_owner(path, SessionId{stat.ephemeral_owner.value + off});
            case 3:
                if (is_compared) value = now->data;
                return Op::has_data(path, is_compared && now->is_null ? coord::null_data
                                                                      : BytesView(value));
            case 4:
                return Op::has_children(path, static_cast<u64>(stat.num_children) + off);
            case 5: return Op::create_or_set(path, value, mode);
            case 6: return Op::remove_all(path);
            case 7:
            case 8: {
                if (known_.empty()) return Op::create_or_set(path, coord::null_data, mode);
                auto [id, password] = known_[static_cast<std::size_t>(work().below(known_.size()))];
                password.low += off;
                return Op::take_over(path, value, id, password);
            }
            default: return Op::create_with_parents(path, value, mode, parents);
        }
    }
    coord::CreateMode any_plain_mode() {
        return work().chance(800) ? coord::CreateMode::persistent : coord::CreateMode::container;
    }
    // What a take_over may be of: a node of a session that somebody knows.
    Bytes any_taken_path(const Client& client, const coord::Op& part) {
        const auto& sessions = checker_.model().sessions();
        const auto owner = sessions.find(SessionId{part.number});
        const bool is_any = part.code != coord::OpCode::take_over || owner == sessions.end() ||
                            owner->second.ephemerals.empty() || work().chance(100);
        return is_any ? any_known_path(client) : *owner->second.ephemerals.begin();
    }

    // A handle whose writes are guarded by up to two nodes, mostly such as are there.
    struct Guarded {
        Session session;
        std::vector<coord::Op> guards;
    };
    Guarded any_guarded(Client& client, std::vector<Bytes>& paths) {
        Guarded guarded{*client.session, {}};
        const u64 count = work().chance(500) ? 0 : 1 + work().below(2);
        paths.reserve(paths.size() + 2);
        for (u64 i = 0; i < count; i++) {
            paths.push_back(work().chance(500) ? any_known_path(client) : Bytes("/a"));
            const sim::Model& model = checker_.model();
            const sim::Model::Version* const now = model.at(paths.back(), model.frontier());
            Zxid czxid = now != nullptr && now->present ? now->stat.czxid : Zxid{7};
            if (work().chance(50)) czxid = Zxid{czxid.value + 1};
            guarded.session = guarded.session.guarded_by(paths.back(), czxid);
            guarded.guards.push_back(coord::Op::guard(paths.back(), czxid));
        }
        return guarded;
    }

    // A write that is a multi on its way: its answer is as if it were none.
    void ask_part(std::size_t slot) {
        Client& client = *clients_[slot];
        std::vector<Bytes> guard_paths;
        const Guarded guarded = any_guarded(client, guard_paths);
        Bytes path = any_known_path(client), value = any_data();
        coord::Op part = any_special(path, value);
        const u64 plain = guarded.guards.empty() ? 0 : work().below(6);
        const std::int32_t version = any_version_of(client, path);
        if (plain == 1) part = coord::Op::create(path, value, any_plain_mode());
        if (plain == 2) part = coord::Op::set(path, value, version);
        if (plain == 3) part = coord::Op::remove(path, version);
        if (part.code == coord::OpCode::check_that) part = coord::Op::create_or_set(path, value);
        path = any_taken_path(client, part);
        part.path = path;
        std::vector<coord::Op> parts = guarded.guards;
        parts.push_back(part);
        Asked asked{Call::part, {}, sim::body_of(parts), 0, false};
        using coord::OpCode;
        asked.has_stat = part.code != OpCode::remove && part.code != OpCode::remove_all;
        const Ticket ticket = ask(slot, asked);
        const auto created = [ticket](const coord::Result<coord::Created>& r) {
            Told told;
            told.error = r.error();
            if (r) told.path = r->path, told.stat = r->stat, told.is_new = r->is_new;
            answer(ticket, told);
        };
        const auto done = [ticket](coord::Result<void> r) {
            answer(ticket, {r.error(), {}, {}, {}, {}, {}});
        };
        const Session& session = guarded.session;
        switch (part.code) {
            case OpCode::create: return session.create(path, value, part.mode, created);
            case OpCode::remove: return session.remove(path, version, done);
            case OpCode::remove_all: return session.remove_all(path, done);
            case OpCode::set:
                return session.set(path, value, version, [ticket](coord::Result<Stat> r) {
                    Told told;
                    told.error = r.error(), told.is_new = false;
                    if (r) told.stat = *r;
                    answer(ticket, told);
                });
            case OpCode::take_over:
                return session.take_over(path, part.data, SessionId{part.number}, part.password,
                                         created);
            case OpCode::create_with_parents:
                return session.create_with_parents(path, part.data, part.mode, part.parents,
                                                   created);
            default: return session.create_or_set(path, part.data, part.mode, created);
        }
    }

    // A quota is set, another one takes its place, or it goes.
    void ask_quota(std::size_t slot) {
        Client& client = *clients_[slot];
        using coord::Op;
        const Bytes subject = any_path();
        const Bytes limits = sim::quota_node(subject, "limits");
        const Bytes stats = sim::quota_node(subject, "stats");
        const Bytes top = "/zookeeper/quota" + subject, below = subject + "/4";
        const std::size_t texts = sizeof sim::quota_texts / sizeof sim::quota_texts[0];
        const u64 which = work().below(texts + 1);
        const Bytes text = which < texts ? sim::quota_texts[which].text : "none";
        const auto mode = work().chance(200) ? coord::CreateMode::ephemeral
                                             : coord::CreateMode::persistent;
        std::vector<Op> parts;
        switch (work().below(9)) {
            case 0: parts = {Op::remove_all(top)}; break;
            case 1: parts = {Op::remove(limits)}; break;
            case 2: parts = {Op::set(limits, text)}; break;
            case 3: parts = {Op::create_or_set(limits, text, mode), Op::set(stats, "any")}; break;
            case 4: parts = {Op::set(limits, text), Op::create(below, text)}; break;
            default:
                parts = {Op::create_with_parents(limits, text, mode),
                         Op::create_with_parents(stats, text)};
        }
        const Ticket ticket = ask(slot, {Call::multi, {}, sim::body_of(parts), 0, false});
        client.session->multi(std::move(parts), [ticket](const coord::Multi& r) {
            Told told;
            told.error = r.error, told.parts = r.parts;
            answer(ticket, told);
        });
    }

    // Mostly of what goes together; one in three has a part that is likely to fail.
    void ask_multi(std::size_t slot) {
        Client& client = *clients_[slot];
        std::vector<Bytes> paths, values, guard_paths;
        const bool is_plain = profile_.only_plain_reads || work().chance(400);
        const Guarded guarded =
            is_plain ? Guarded{*client.session, {}} : any_guarded(client, guard_paths);
        const std::size_t count = work().below(5);
        for (std::size_t i = 0; i < count; i++) {
            paths.push_back(any_known_path(client));
            values.push_back(std::to_string(++payloads_));  // they share one message
        }
        std::vector<coord::Op> parts;
        for (std::size_t i = 0; i < count; i++) {
            if (profile_.acls && work().chance(150)) {
                parts.push_back(coord::Op::set_acl(paths[i], any_acl()));
                continue;
            }
            const auto mode = any_mode();
            const Duration ttl = milliseconds(any_ttl(mode));
            const std::int32_t version =
                work().chance(900) ? coord::any_version : any_version_of(client, paths[i]);
            if (!is_plain && work().chance(600)) {
                parts.push_back(any_special(paths[i], values[i]));
                continue;
            }
            switch (work().below(8)) {
                case 0: parts.push_back(coord::Op::check(paths[i], version)); break;
                case 1: parts.push_back(coord::Op::remove(paths[i], version)); break;
                case 2:
                case 3: parts.push_back(coord::Op::set(paths[i], values[i], version)); break;
                case 4: parts.push_back(coord::Op::set(paths[i], coord::null_data)); break;
                default: parts.push_back(coord::Op::create(paths[i], values[i], mode, ttl,
                                                                  maybe_acl()));
            }
        }
        std::vector<coord::Op> all = guarded.guards;
        all.insert(all.end(), parts.begin(), parts.end());
        Asked asked{Call::multi, {}, sim::body_of(all), 0, false};
        asked.guards = guarded.guards.size();
        const Ticket ticket = ask(slot, asked);
        guarded.session.multi(std::move(parts), [ticket](const coord::Multi& r) {
            Told told;
            told.error = r.error, told.parts = r.parts;
            answer(ticket, told);
        });
    }

    coord::Watcher watcher(const Ticket& ticket, bool wanted) {
        if (!wanted) return {};
        return [ticket](const coord::WatchEvent& event) {
            ticket.run->checker_.event(ticket->id, ticket->number, event.type, event.path,
                                       event.zxid);
        };
    }

    // Mostly none; else one that somebody has seen, here or elsewhere, or the newest.
    Zxid any_level() {
        if (profile_.only_plain_reads) return Zxid{};
        const u64 kind = work().below(8);
        return kind == 0 ? coord::newest : kind == 1 ? checker_.model().frontier() : Zxid{};
    }

    // Several at one moment.
    void ask_read(std::size_t slot) {
        Client& client = *clients_[slot];
        using Kind = coord::Query::Kind;
        static const char* const parents[] = {"/a", "/b", "/a/c", "/"};
        Asked asked{Call::read, {}, {}, 0, false};
        asked.least = any_level();
        for (u64 count = work().below(6); count > 0; count--) {
            const auto kind = static_cast<Kind>(work().below(profile_.acls ? 7 : 6));
            coord::Query query{kind, {}, {}};
            Bytes path = any_known_path(client);
            if (kind == Kind::ephemerals) path = "/" + Bytes(work().below(2), 'a');
            if (kind == Kind::children || kind == Kind::list || kind == Kind::descendants) {
                path = parents[work().below(kind == Kind::descendants ? 3 : 4)];
            }
            if (kind == Kind::children || kind == Kind::list) {
                if (work().chance(400)) query.page.limit = work().below(4);
                if (work().chance(300)) query.page.after = std::to_string(work().below(4));
                if (work().chance(300)) query.page.prefix = work().chance(500) ? "s-" : "3";
            }
            asked.queries.push_back(query), asked.paths.push_back(path);
        }
        for (std::size_t i = 0; i < asked.paths.size(); i++) asked.queries[i].path = asked.paths[i];
        const Ticket ticket = ask(slot, asked);
        client.session->at_least(asked.least)
            .multi_read(asked.queries, [ticket](coord::Result<coord::MultiRead> r) {
                Told told;
                told.error = r.error();
                if (r) told.zxid = r->zxid, told.found = std::move(r->parts);
                answer(ticket, told);
            });
    }

    void ask_exists(std::size_t slot) {
        Client& client = *clients_[slot];
        Asked asked{Call::exists, any_known_path(client), {}, 0, work().chance(400)};
        asked.least = any_level();
        const Ticket ticket = ask(slot, asked);
        client.session->at_least(asked.least).exists(asked.path, watcher(ticket, asked.watch),
                               [ticket, path = asked.path](coord::Result<Stat> r) {
                                   Told told;
                                   told.error = r.error();
                                   if (r) told.stat = *r;
                                   if (r)
                                       ticket.run->clients_[ticket->slot]->versions[path] =
                                           r->version;
                                   answer(ticket, told);
                               });
    }

    void ask_get(std::size_t slot) {
        Client& client = *clients_[slot];
        Asked asked{Call::get, any_known_path(client), {}, 0, work().chance(300)};
        asked.least = any_level();
        const Ticket ticket = ask(slot, asked);
        client.session->at_least(asked.least).get(asked.path, watcher(ticket, asked.watch),
                            [ticket, path = asked.path](coord::Result<coord::Data> r) {
                                Told told;
                                told.error = r.error();
                                if (r)
                                    told.stat = r->stat, told.data = r->bytes, told.zxid = r->zxid,
                                    told.is_null = r->is_null;
                                if (r)
                                    ticket.run->clients_[ticket->slot]->versions[path] =
                                        r->stat.version;
                                answer(ticket, told);
                            });
    }

    void ask_children(std::size_t slot) {
        Client& client = *clients_[slot];
        static const char* const parents[] = {"/a", "/b", "/a/c", "/"};
        const Asked asked{Call::children, parents[work().below(4)], {}, 0, work().chance(300)};
        const Ticket ticket = ask(slot, asked);
        client.session->children(asked.path, watcher(ticket, asked.watch),
                                 [ticket, path = asked.path](coord::Result<coord::Children> r) {
                                     Told told;
                                     told.error = r.error();
                                     if (r)
                                         told.stat = r->stat, told.names = std::move(r->names),
                                         told.zxid = r->zxid;
                                     answer(ticket, told);
                                     Client& own = *ticket.run->clients_[ticket->slot];
                                     own.parent = path;
                                     if (path == "/") told.names.clear();
                                     own.names = std::move(told.names);
                                 });
    }

    void ask_add_watch(std::size_t slot) {
        Client& client = *clients_[slot];
        static const char* const parents[] = {"/a", "/b", "/a/c", "/"};
        if (checker_.staying(client.who()) >= 4) return;
        if (profile_.readers > 0 && streams_.chance(500)) return ask_watch_since(slot);
        Asked asked{Call::add_watch, any_known_path(client), {}, 0, true};
        if (work().chance(500)) asked.path = parents[work().below(4)];
        asked.number = static_cast<std::int32_t>(work().below(2));
        const Ticket ticket = ask(slot, asked);
        client.session->add_watch(asked.path, static_cast<coord::AddWatchMode>(asked.number),
                                  watcher(ticket, true), [ticket](coord::Result<void> r) {
                                      answer(ticket, {r.error(), {}, {}, {}, {}, {}});
                                  });
    }

    // As of one of the last changes that there were, here or only elsewhere.
    void ask_watch_since(std::size_t slot) {
        Client& client = *clients_[slot];
        const std::vector<Model::PathChange>& all = checker_.model().all_changes();
        const u64 back = streams_.between(1, 60);
        if (all.size() < back) return;
        Asked asked{Call::watch_since, any_known_path(client), {}, 0, true};
        asked.least = all[all.size() - static_cast<std::size_t>(back)].zxid;
        asked.number = static_cast<std::int32_t>(streams_.below(4));
        const Ticket ticket = ask(slot, asked);
        client.session->watch_since(asked.least, static_cast<coord::Watched>(asked.number),
                                    asked.path, watcher(ticket, true),
                                    [ticket](coord::Result<void> r) {
                                        answer(ticket, {r.error(), {}, {}, {}, {}, {}});
                                    });
    }

    void ask_remove_watches(std::size_t slot) {
        Client& client = *clients_[slot];
        static const char* const parents[] = {"/a", "/b", "/a/c", "/"};
        Asked asked{Call::remove_watches, any_known_path(client), {}, 0, false};
        if (work().chance(700)) asked.path = parents[work().below(4)];
        const Ticket ticket = ask(slot, asked);
        client.session->remove_watches(asked.path, coord::WatcherType::any,
                                       [ticket](coord::Result<void> r) {
                                           answer(ticket, {r.error(), {}, {}, {}, {}, {}});
                                       });
    }

    void ask_sync(std::size_t slot) {
        Client& client = *clients_[slot];
        const Ticket ticket = ask(slot, {Call::sync, {}, {}, 0, false});
        client.session->sync([ticket](coord::Result<void> r) {
            answer(ticket, {r.error(), {}, {}, {}, {}, {}});
        });
    }

    // ---- Registers: nodes of which the whole history is kept, and judged without the log.

    struct History {
        std::vector<RegisterCall> calls;
        std::vector<bool> is_void;  // never done, or a read without an answer
        std::int32_t version = 0;   // that somebody has seen last
    };

    static constexpr std::size_t calls_max = 600;  // of one: a search may take long

    void ask_register(std::size_t slot) {
        using Kind = RegisterCall::Kind;
        if (work().chance(registers_.empty() ? 1000 : 20)) {
            if (registers_.empty()) registers_.resize(profile_.registers);
            return ask_to_create(slot, "/r", {}, SIZE_MAX, 0);
        }
        const std::size_t place = static_cast<std::size_t>(work().below(registers_.size()));
        History& history = registers_[place];
        if (history.calls.size() >= calls_max) return ask_get(slot);
        const Bytes path = "/r/" + std::to_string(place);
        static constexpr Kind kinds[] = {Kind::create, Kind::create, Kind::remove, Kind::set,
                                         Kind::set,    Kind::set,    Kind::get};
        const u64 which = work().below(10);
        RegisterCall call;
        call.kind = which < 7 ? kinds[which] : Kind::get;
        call.called = ++moment_;
        if (call.kind != Kind::get) call.value = ++payloads_;
        if (call.kind != Kind::get && work().chance(500)) call.asked = history.version;
        const std::size_t number = history.calls.size();
        const Bytes data = std::to_string(call.value);
        history.calls.push_back(call), history.is_void.push_back(call.kind == Kind::get);
        switch (call.kind) {
            case Kind::create: return ask_to_create(slot, path, data, place, number);
            case Kind::remove: return ask_to_remove(slot, path, call.asked, place, number);
            case Kind::set: return ask_to_set(slot, path, data, call.asked, place, number);
            case Kind::get: return ask_for_newest(slot, path, place, number);
        }
    }

    // What is known to have come to nothing is no part of the history; what is not known, is.
    void end_register(std::size_t place, std::size_t number, Errc error, std::int32_t version,
                      u64 value) {
        if (place >= registers_.size()) return;
        History& history = registers_[place];
        RegisterCall& call = history.calls[number];
        const bool is_read = call.kind == RegisterCall::Kind::get;
        const bool is_told = error == Errc::ok || error == Errc::no_node ||
                             error == Errc::node_exists || error == Errc::bad_version;
        const bool has_no_parent = error == Errc::no_node &&
                                   call.kind == RegisterCall::Kind::create;
        if (error == Errc::outcome_unknown) return;
        history.is_void[number] = !is_told || has_no_parent;
        call.error = error, call.version = version, call.returned = ++moment_;
        if (is_read) call.value = value;
        if (error == Errc::ok) history.version = version;
    }

    void ask_to_create(std::size_t slot, const Bytes& path, const Bytes& data, std::size_t place,
                       std::size_t number) {
        const Ticket ticket = ask(slot, {Call::create, path, data, 0, false});
        clients_[slot]->session->create(
            path, data, [ticket, place, number](const coord::Result<coord::Created>& r) {
                Told told;
                told.error = r.error();
                if (r) told.path = r->path, told.stat = r->stat;
                ticket.run->end_register(place, number, r.error(), 0, 0);
                answer(ticket, told);
            });
    }
    void ask_to_remove(std::size_t slot, const Bytes& path, std::int32_t version,
                       std::size_t place, std::size_t number) {
        const Ticket ticket = ask(slot, {Call::remove, path, {}, version, false});
        clients_[slot]->session->remove(
            path, version, [ticket, place, number](coord::Result<void> r) {
                ticket.run->end_register(place, number, r.error(), 0, 0);
                answer(ticket, {r.error(), {}, {}, {}, {}, {}});
            });
    }
    void ask_to_set(std::size_t slot, const Bytes& path, const Bytes& data, std::int32_t version,
                    std::size_t place, std::size_t number) {
        const Ticket ticket = ask(slot, {Call::set, path, data, version, false});
        clients_[slot]->session->set(
            path, data, version, [ticket, place, number](coord::Result<Stat> r) {
                Told told;
                told.error = r.error();
                if (r) told.stat = *r;
                ticket.run->end_register(place, number, r.error(), told.stat.version, 0);
                answer(ticket, told);
            });
    }
    // Of the newest state, or after a sync: both are linearizable.
    void ask_for_newest(std::size_t slot, const Bytes& path, std::size_t place,
                        std::size_t number) {
        Asked asked{Call::get, path, {}, 0, false};
        if (profile_.waiting_max == 0 && work().chance(500)) {  // else it was none
            ask_sync(slot);
        } else {
            asked.least = coord::newest;
        }
        const Ticket ticket = ask(slot, asked);
        clients_[slot]->session->at_least(asked.least).get(
            path, coord::Watcher(), [ticket, place, number](const coord::Result<coord::Data>& r) {
                Told told;
                told.error = r.error();
                if (r) told.stat = r->stat, told.data = r->bytes, told.zxid = r->zxid;
                if (r) told.is_null = r->is_null;
                const u64 value = std::strtoull(told.data.c_str(), nullptr, 10);
                ticket.run->end_register(place, number, r.error(), told.stat.version, value);
                answer(ticket, told);
            });
    }

    // P6
    void judge_registers() {
        for (std::size_t place = 0; place < registers_.size() && checker_.ok(); place++) {
            const History& history = registers_[place];
            std::vector<RegisterCall> calls;
            for (std::size_t i = 0; i < history.calls.size(); i++) {
                if (!history.is_void[i]) calls.push_back(history.calls[i]);
            }
            judged_ += calls.size();
            for (const RegisterCall& call : calls) {
                unknown_ += call.returned == RegisterCall::never ? 1u : 0u;
            }
            const Verdict verdict = judge_register(calls);
            given_up_ += verdict == Verdict::too_long ? 1u : 0u;  // that says nothing of the calls
            if (verdict != Verdict::flawed) continue;
            checker_.violate("P6", std::to_string(calls.size()) + " calls to /r/" +
                                       std::to_string(place) +
                                       " have no order in which all answers are right");
        }
    }

    // ---- Streams. What readers do comes from a stream of chance of their own, as the hints.

    void read_on(std::size_t place) {
        Reader& reader = readers_[place];
        if (!is_over_) {
            sim_.after(any_ms(streams_, 1, profile_.op_gap_ms * 3),
                       [this, place] { read_on(place); });
        }
        if (!reader.stream) return go_on(place);
        const bool is_gone = !sim_.is_running(reader.home) || starts_[reader.home] != reader.start;
        if (!is_gone && sim_.is_paused(reader.home)) return;
        if (reader.way == Reader::Way::asks || is_gone) take_some(place);
        if (reader.stream && reader.stream->error() != Errc::ok) return end_stream(place);
        if (reader.stream && !resting_ && streams_.chance(30)) leave_stream(place);
    }
    void take_some(std::size_t place) {
        Reader& reader = readers_[place];
        const auto taken = reader.stream->take(static_cast<std::size_t>(streams_.between(1, 12)));
        if (!taken) return;
        for (const coord::Change& change : *taken) has_come(place, change);
        if (taken->empty()) check_stream(place);
    }
    void has_come(std::size_t place, const coord::Change& change) {
        checker_.streamed(place, change);
        readers_[place].from = change.position;
    }
    void check_stream(std::size_t place) {
        const Reader& reader = readers_[place];
        checker_.streamed_all(place, sim_.replica(reader.home).machine().applied(),
                              reader.stream->position());
    }
    // From the last change, or from what has been looked through, which may be far behind that.
    void leave_stream(std::size_t place) {
        Reader& reader = readers_[place];
        if (streams_.chance(500)) reader.from = reader.stream->position();
        reader.stream.reset();
    }
    void end_stream(std::size_t place) {
        Reader& reader = readers_[place];
        const Errc error = reader.stream->error();
        const coord::ChangePosition position = reader.stream->position();
        leave_stream(place);
        if (error == Errc::snapshot_needed) {
            cut_ += 1;
            checker_.stream_is_cut(place, position, profile_.is_little_kept);
            reader.path.clear();  // anew
        } else if (error != Errc::session_expired && error != Errc::session_moved &&
                   error != Errc::replica_failed) {
            checker_.violate("P25", Bytes("a stream ends with ") + coord::name(error));
        }
    }
    void go_on(std::size_t place) {
        Reader& reader = readers_[place];
        Client& client = *clients_[static_cast<std::size_t>(streams_.below(clients_.size()))];
        if (!client.session || client.leaving || !sim_.is_running(client.home) ||
            sim_.is_paused(client.home) || is_over_) {
            return;
        }
        static const char* const parents[] = {"/a", "/b", "/a/c", "/", "/a/1"};
        const bool is_new = reader.path.empty();
        if (is_new) {
            reader.path = parents[streams_.below(5)];
            reader.from = sim_.replica(client.home).machine().applied();
        }
        resumed_ += is_new ? 0 : 1;
        reader.home = client.home, reader.start = starts_[client.home];
        reader.way = static_cast<Reader::Way>(streams_.below(3));
        checker_.streams(place, reader.path, reader.from, client.home, is_new);
        coord::SubscribeOptions options{reader.from};
        options.changes_a_poll = static_cast<std::size_t>(streams_.between(1, 9));
        if (reader.way == Reader::Way::is_called) {
            reader.stream = client.session->on_changes(
                reader.path, options, [this, place](const coord::Change& change) {
                    if (change.error == Errc::ok) has_come(place, change);
                });
        } else {
            reader.stream = client.session->subscribe(reader.path, options, [this, place] {
                if (readers_[place].way == Reader::Way::is_told) take_some(place);
            });
        }
    }
    // At rest all has come, whoever waits to be told.
    bool all_is_read() {
        for (const Reader& reader : readers_) {
            if (!reader.stream || reader.stream->error() != Errc::ok) continue;
            const Zxid here = sim_.replica(reader.home).machine().applied();
            if (reader.stream->position() < coord::ChangePosition(here)) return false;
        }
        return true;
    }

    // ---- Locks

    template <class Call>
    static void with_lock(Client& client, const Call& call) {
        if (client.lock) call(*client.lock);
        if (client.shared) call(*client.shared);
    }

    void make_lock(std::size_t slot) {
        Client& client = *clients_[slot];
        namespace permission = coord::permission;
        constexpr u32 enough = permission::read | permission::create | permission::remove;
        const coord::Acl acl = profile_.acls ? coord::Acl(enough, "world", "anyone") : coord::Acl();
        const u64 which = work().below(3);
        client.lock_path = which == 2 ? "/shared/0" : "/locks/" + std::to_string(which);
        if (which == 2) {
            client.shared =
                std::make_unique<coord::ReadWriteLock>(*client.session, client.lock_path, acl);
        } else {
            client.lock = std::make_unique<coord::Lock>(*client.session, client.lock_path, acl);
        }
        with_lock(client, [this, slot](auto& lock) {
            lock.on_lost([this, slot](Errc) { let_go(*clients_[slot]); });
        });
    }

    void use_lock(std::size_t slot) {
        Client& client = *clients_[slot];
        if (!client.lock && !client.shared) make_lock(slot);
        if (work().chance(client.has_lock ? 400 : 50)) write_guarded(client);
        if (client.has_lock) {
            if (client.shared && work().chance(150)) downgrade(slot);
            if (!work().chance(200)) return;
            let_go(client);
            if (work().chance(800)) with_lock(client, [](auto& lock) { lock.release(); });
            if (work().chance(100)) client.lock.reset(), client.shared.reset();
            with_lock(client, [](auto& lock) {
                if (lock.fencing_token() != 0) lock.release();
            });
        } else if (!client.contending) {
            contend(slot);
        } else if (work().chance(10)) {
            with_lock(client, [](auto& lock) { lock.cancel(); });
        } else if (work().chance(5)) {
            client.leaving = true;
            client.session->close();
        }
    }

    void downgrade(std::size_t slot) {
        Client& client = *clients_[slot];
        if (client.access == coord::Access::read || client.downgrading) return;
        client.downgrading = true;
        checker_.will_read(client.lock_path, client.holder);
        const auto done = [this, slot, generation = client.generation,
                           holder = client.holder](coord::Result<coord::Grant> grant) {
            Client& own = *clients_[slot];
            if (own.generation != generation || own.holder != holder) return;
            own.downgrading = false;
            if (!grant || !own.has_lock) return;
            checker_.downgraded(own.lock_path, own.grant.fencing_token, grant->fencing_token);
            own.access = coord::Access::read;
            own.grant = *grant;
            sample(own);
        };
        client.shared->downgrade(done);
    }

    // Also when it is the lock's holder no more, and does not care.
    void write_guarded(Client& client) {
        if (client.grant.fencing_token == 0) return;
        const Session guarded = client.grant.guarded(*client.session);
        const Bytes path = "/guarded" + client.lock_path;
        guarded.create_with_parents(path, {}, coord::OnCreated());
        guarded.set(path, std::to_string(client.grant.fencing_token), coord::OnStat());
    }

    void let_go(Client& client) {
        sim_.note("replica " + std::to_string(client.home) + " lets go " + client.lock_path);
        checker_.let_go(client.lock_path, client.holder);
        client.has_lock = false;
    }

    void contend(std::size_t slot) {
        Client& client = *clients_[slot];
        client.contending = true;
        client.downgrading = false;
        client.holder = ++holders_;
        client.access = client.shared && work().chance(600) ? coord::Access::read
                                                            : coord::Access::write;
        const u64 generation = client.generation;
        const auto granted = [this, slot, generation](coord::Result<coord::Grant> grant) {
            Client& own = *clients_[slot];
            if (own.generation != generation) return;
            own.contending = false;
            if (!grant) return;
            own.has_lock = true;
            own.grant = *grant;
            sim_.note("replica " + std::to_string(own.home) + " holds " + own.lock_path + " by " +
                      show(Zxid{grant->fencing_token}) + " of session " +
                      show(Zxid{own.session->id().value}));
            checker_.granted(own.lock_path, own.holder, grant->fencing_token, sim_.now(),
                             own.access == coord::Access::write);
            if (own.leaving) return let_go(own);  // its close is under way
            sample(own);
        };
        const Duration limit = any_ms(work(), 10, 2000);
        const bool is_try = work().chance(200), is_limited = work().chance(300);
        if (client.shared && is_try) return client.shared->try_acquire(client.access, granted);
        if (client.shared && is_limited) {
            return client.shared->acquire_for(client.access, limit, granted);
        }
        if (client.shared) return client.shared->acquire(client.access, granted);
        if (is_try) return client.lock->try_acquire(granted);
        if (is_limited) return client.lock->acquire_for(limit, granted);
        client.lock->acquire(granted);
    }

    // ---- Faults

    // When it comes and what it is follows from its number alone, where there is a salt.
    void schedule_fault() {
        const u64 number = next_fault_++;
        if (profile_.salt != 0) {
            faults_ = Rng(coord::mix64(seed_, coord::mix64(profile_.salt, ~number)));
        }
        sim_.after(any_ms(faults_, 1, profile_.fault_gap_ms * 2), [this, number] {
            if (healing_) return;
            if (profile_.are_all_faults || has(profile_.faults, number)) {
                faults_made_.push_back(number);
                make_fault();
            }
            schedule_fault();
        });
    }
    u32 any_victim() {
        const PeerId leader = sim_.leader();
        if (profile_.at_leader && leader != PeerId{} && faults_.chance(700)) return leader.value;
        return static_cast<u32>(faults_.between(1, profile_.replicas()));
    }
    Duration any_length() { return any_ms(faults_, 1, faults_.chance(500) ? 300 : 3000); }

    void stall(u32 victim) {
        const Duration length = any_length();
        stalled_until_ = (std::max)(stalled_until_, sim_.now() + length);
        sim_.stall(victim, length);
    }

    // One of the classes that are on.
    void make_fault() {
        const Profile& p = profile_;
        const bool on[] = {p.splits,          p.one_way,      p.bridges, p.rotation, p.crashes,
                           p.crashes_in_poll, p.power_losses, p.pauses,  p.stalls,   p.wall_jumps,
                           p.at_feeders};
        std::vector<std::size_t> classes;
        for (std::size_t i = 0; i < sizeof on / sizeof on[0]; i++) {
            if (on[i]) classes.push_back(i);
        }
        if (classes.empty()) return;
        const u32 victim = any_victim();
        switch (classes[faults_.below(classes.size())]) {
        case 0: return split();
        case 1: return cut_one_way();
        case 2: return bridge();
        case 3: return rotate(static_cast<u32>(faults_.between(2, 8)));
        case 4: return crash(victim, any_length());
        case 5: return crash_in_poll();
        case 6: return faults_.chance(500) ? lose_power() : void();
        case 7: return pause();
        case 8: return stall(victim);
        case 10: return strike_feeder();
        default: break;
        }
        const auto seconds = static_cast<std::int64_t>(faults_.below(2 * 86400)) - 86400;
        sim_.advance_wall_clock(victim, coord::seconds(seconds));
    }
    void heal_later(Duration after) {
        sim_.after(after, [this] {
            if (!healing_) sim_.heal();
        });
    }
    void split() {
        const u64 side = faults_.below(u64{1} << profile_.replicas());
        const u32 alone = profile_.at_leader ? any_victim() : 0;
        for (u32 a = 1; a <= profile_.replicas(); a++) {
            for (u32 b = 1; b <= profile_.replicas(); b++) {
                const bool apart = alone != 0 ? a == alone : (side >> (a - 1) & 1) == 1;
                const bool other = alone != 0 ? b == alone : (side >> (b - 1) & 1) == 1;
                if (apart != other) sim_.cut(a, b);
            }
        }
        heal_later(any_length());
    }
    void cut_one_way() {
        const u32 victim = any_victim();
        const u64 way = faults_.below(3);  // deaf, mute, or towards one other
        for (u32 other = 1; other <= profile_.replicas(); other++) {
            if (other == victim || (way == 2 && faults_.chance(500))) continue;
            if (way == 0) sim_.cut(other, victim);
            if (way != 0) sim_.cut(victim, other);
        }
        heal_later(any_length());
    }
    // Two sides that do not hear each other, and one in the middle that hears all.
    void bridge() {
        if (profile_.replicas() < 3) return;
        const u32 middle = any_victim();
        for (u32 a = 1; a <= profile_.replicas(); a++) {
            for (u32 b = 1; b <= profile_.replicas(); b++) {
                if (a == middle || b == middle || a % 2 == b % 2) continue;
                sim_.cut(a, b);
            }
        }
        const u32 low = middle == 1 ? 2 : 1;
        const u32 last = profile_.replicas();
        const u32 high = middle == last ? last - 1 : last;
        if (low != high) sim_.cut(low, high), sim_.cut(high, low);
        heal_later(any_length());
    }
    void rotate(u32 rounds) {
        sim_.heal();
        if (rounds == 0 || healing_ || profile_.replicas() < 2) return;
        const u32 a = static_cast<u32>(faults_.between(1, profile_.replicas()));
        const u32 b = a % profile_.replicas() + 1;
        sim_.cut(a, b);
        if (faults_.chance(700)) sim_.cut(b, a);
        sim_.after(any_ms(faults_, 50, 600),
                   [this, rounds] { healing_ ? void() : rotate(rounds - 1); });
    }
    void crash(u32 id, Duration down) {
        if (!sim_.is_running(id)) return;
        sim_.crash(id);
        restart_later(id, down);
    }
    // An observer hears its feeder, and not the leader; or its feeder is another one at once, of
    // the same epoch; or does not hear the leader for a while.
    void strike_feeder() {
        const u32 first = static_cast<u32>(faults_.below(profile_.replicas()));
        const u64 way = faults_.below(4);
        for (u32 i = 0; i < profile_.replicas(); i++) {
            const u32 id = (first + i) % profile_.replicas() + 1;
            if (!sim_.is_running(id)) continue;
            const coord::ReplicaStatus status = sim_.replica(id).status();
            if (status.feeder == PeerId{}) continue;
            const PeerId one = way == 0 ? PeerId{id} : status.feeder;
            if (way >= 2) return crash(status.feeder.value, any_ms(faults_, 1, 100));
            sim_.cut(one, status.leader);
            sim_.cut(status.leader, one);
            return heal_later(any_length());
        }
    }
    void crash_in_poll() {
        const u32 id = any_victim();
        if (!sim_.is_running(id)) return;
        sim_.crash_at_send(id, static_cast<u32>(faults_.between(1, 20)));
        restart_later(id, milliseconds(500) + any_length());
    }
    void restart_later(u32 id, Duration after) {
        sim_.after(after, [this, id] {
            if (!sim_.is_running(id)) restart(id);
        });
    }
    // How many would not count if this one had lost its storage.
    u32 strangers(u32 lost) {
        u32 count = 0;
        for (u32 id = 1; id <= profile_.voters; id++) {
            const u64 own = sim_.storage(id).id();
            count += id == lost || own == 0 || own != admitted_.storage_of(PeerId{id}) ? 1u : 0u;
        }
        return count;
    }
    // Never so many at a time that a majority does not remember: nothing could survive that.
    void maybe_wipe(u32 id) {
        if (!profile_.wipes || healing_ || !faults_.chance(400)) return;
        if (profile_.churn && !may_forget(id)) return;
        if (profile_.voters == 1 && id == 1) return;  // by its options it would found once more
        const bool is_founded = admitted_.knows(PeerId{id}) && !admitted_.is_founding();
        const bool may_lack = is_founded && strangers(id) <= (profile_.voters - 1) / 2;
        if (id <= profile_.voters && !may_lack && !profile_.churn) return;
        if (profile_.churn) tell_all_that_gone(id);
        wipes_ += 1;
        sim_.note("replica " + std::to_string(id) + " has lost its storage");
        sim_.storage(id) = coord::MemoryStorage{};
        checker_.wiped(id);
    }
    // Or a change could be begun that counts on it: on one that is as good as alone, even.
    void tell_all_that_gone(u32 lost) {
        for (u32 id = 1; id <= profile_.replicas(); id++) {
            if (id != lost && sim_.is_running(id)) sim_.forget(id, lost);
        }
    }
    // The same while who votes changes: nothing of that is asked for, or under way as far as all
    // others know, and a quorum remembers without it. A change that is numbered as the storage is
    // lost that it counts on waits for it for ever: who asks for one says who is sound.
    bool may_forget(u32 lost) {
        if (may_change() || admitted_.members().empty() || admitted_.is_founding()) return false;
        const coord::Voters voters(admitted_);
        u64 bits = 0;
        for (u32 id = 1; id <= profile_.replicas(); id++) {
            if (id == lost) continue;
            if (!sim_.is_running(id)) return false;
            coord::Replica& replica = sim_.replica(id);
            const coord::VoterTable own = replica.log().voters_at_end(replica.machine());
            if (own.is_joint() || own.changed() != admitted_.changed()) return false;
            const u64 storage = sim_.storage(id).id();
            if (storage == admitted_.storage_of(PeerId{id})) bits |= voters.bit(PeerId{id});
        }
        return !admitted_.is_joint() && voters.is_quorum(bits);
    }
    void restart(u32 id) {
        maybe_wipe(id);
        checker_.restarted(id);
        starts_[id] += 1;
        sim_.restart(id);
        const coord::ReplicaStatus status = sim_.replica(id).status();
        checker_.state(id, status.applied, status.digest);
        checker_.begun(id, status.applied);
    }
    void lose_power() {
        for (u32 id = 1; id <= profile_.replicas(); id++) crash(id, any_length());
    }
    void pause() {
        const u32 id = any_victim();
        if (!sim_.is_running(id)) return;
        sim_.pause(id);
        sim_.after(any_length(), [this, id] {
            if (sim_.is_paused(id)) sim_.resume(id);
        });
    }

    // ---- Hints that a peer is gone. They come from a stream of their own: what else happens in a
    // seed's run does not depend on how many there are.

    // Some of the others notice, some of them more than once, some when it is back already.
    void hint_at_crash(u32 gone) {
        if (!profile_.hints || healing_) return;
        for (u32 id = 1; id <= profile_.replicas(); id++) {
            if (id == gone || !hints_.chance(700)) continue;
            hint_later(id, gone, any_ms(hints_, 0, hints_.chance(700) ? 20 : 2000));
            if (hints_.chance(200)) hint_later(id, gone, any_ms(hints_, 0, 500));
        }
    }
    // Wrong, or of a link that is cut; now and then a shower of them.
    void schedule_hint() {
        sim_.after(any_ms(hints_, 1, profile_.fault_gap_ms * 2), [this] {
            if (healing_) return;
            const PeerId leader = sim_.leader();
            u32 gone = static_cast<u32>(hints_.between(1, profile_.replicas()));
            if (profile_.at_leader && leader != PeerId{} && hints_.chance(500)) gone = leader.value;
            const u64 others = hints_.chance(200) ? profile_.replicas() : 1;
            for (u64 i = 0; i < others; i++) {
                const u32 id = static_cast<u32>(hints_.between(1, profile_.replicas()));
                const u64 times = hints_.chance(200) ? hints_.between(2, 30) : 1;
                for (u64 j = 0; j < times; j++) {
                    if (id != gone) hint_later(id, gone, any_ms(hints_, 0, j * 20));
                }
            }
            schedule_hint();
        });
    }
    void hint_later(u32 id, u32 gone, Duration after) {
        sim_.after(after, [this, id, gone] {
            if (!healing_ && sim_.is_running(id)) sim_.forget(id, gone);
        });
    }

    // ---- Leaders that hand over, from a stream of their own, too

    void schedule_hand_over() {
        sim_.after(any_ms(hand_overs_, 1, profile_.fault_gap_ms * 2), [this] {
            if (healing_) return;
            const PeerId leader = sim_.leader();
            u32 id = static_cast<u32>(hand_overs_.between(1, profile_.replicas()));
            if (leader != PeerId{} && hand_overs_.chance(800)) id = leader.value;
            u32 to = 0;  // to itself, to one who observes and to nobody's id, now and then
            if (hand_overs_.chance(500)) {
                to = static_cast<u32>(hand_overs_.between(1, profile_.replicas() + 1));
            }
            if (sim_.is_running(id)) hand_over(id, PeerId{to});
            schedule_hand_over();
        });
    }
    void hand_over(u32 id, PeerId to) {
        coord::Replica& replica = sim_.replica(id);
        const bool led = replica.status().role == coord::Role::leading;
        const Errc error = replica.hand_over(to);
        if (!led && error != Errc::not_leading && error != Errc::replica_failed) {
            checker_.violate("P30", "who does not lead hands over");
        }
        if (error != Errc::ok) return;
        const u64 before = ends_of(id), start = starts_[id], pauses = sim_.counters().pauses;
        const Duration silence = profile_.options.replica.timing.silence;
        const Duration wait = silence * 3 / 2 + profile_.options.poll_delay_max;
        sim_.after(wait, [this, id, before, start, pauses] {
            const bool is_same = sim_.is_running(id) && starts_[id] == start &&
                                 sim_.counters().pauses == pauses && !sim_.is_paused(id);
            if (!is_same || sim_.replica(id).status().successor == PeerId{}) return;
            if (ends_of(id) == before) checker_.violate("P30", "a hand-over has no end");
        });
    }
    u64 ends_of(u32 id) {
        const coord::Replica& replica = sim_.replica(id);
        const coord::LeaderCounters& own = replica.leader_counters();
        return own.hand_overs + own.hand_overs_failed + replica.counters().elections;
    }

    // A rolling upgrade: one after the other.
    void roll_later(u32 id) {
        const u32 next = id > profile_.replicas() ? 1 : id;
        const u64 longest = next == 1 ? 3000 : 300;
        sim_.after(any_ms(hand_overs_, 1, longest), [this, next] {
            if (healing_) return;
            if (!sim_.is_running(next) || sim_.is_paused(next)) return roll_later(next + 1);
            hand_over(next, PeerId{});
            stop_when_handed_over(next, 100);
        });
    }
    void stop_when_handed_over(u32 id, u32 patience) {
        const bool waits =
            sim_.is_running(id) && sim_.replica(id).status().successor != PeerId{};
        if (waits && patience > 0) {
            sim_.after(milliseconds(10), [this, id, patience] {
                if (!healing_) stop_when_handed_over(id, patience - 1);
            });
            return;
        }
        stops_ += 1;
        crash(id, any_ms(hand_overs_, 1, 400));
        go_on_when_it_serves(id, 100);
    }
    void go_on_when_it_serves(u32 id, u32 patience) {
        const bool serves = sim_.is_running(id) && sim_.replica(id).status().serving;
        if (serves || patience == 0) return roll_later(id + 1);
        sim_.after(milliseconds(20), [this, id, patience] {
            if (!healing_) go_on_when_it_serves(id, patience - 1);
        });
    }

    // ---- The end

    bool all_serve() {
        for (u32 id = 1; id <= profile_.replicas(); id++) {
            if (!sim_.is_running(id) || !sim_.replica(id).status().serving) return false;
        }
        return true;
    }
    bool all_count() {
        for (u32 id = 1; id <= profile_.replicas(); id++) {
            const bool founds = admitted_.members().empty() && id <= profile_.voters;
            if (!founds && !admitted_.knows(PeerId{id})) continue;
            if (!sim_.is_running(id) || !sim_.replica(id).status().admitted) return false;
        }
        return true;
    }
    bool all_have(Zxid zxid) {
        for (u32 id = 1; id <= profile_.replicas(); id++) {
            if (!sim_.is_running(id) || sim_.replica(id).machine().applied() < zxid) return false;
        }
        return true;
    }

    void recover() {
        healing_ = true;
        sim_.heal();
        sim_.set_network(profile_.options.network);
        sim_.set_disk({{}, coord::microseconds(profile_.disk.flush_max.ns > 0 ? 300 : 0), false});
        for (u32 id = 1; id <= profile_.replicas(); id++) {
            if (!sim_.is_running(id)) restart(id);
            if (sim_.is_paused(id)) sim_.resume(id);
            sim_.crash_at_send(id, UINT32_MAX - 1);
        }
        const Duration silence = profile_.options.replica.timing.silence;
        const Duration patience =
            silence * 10 + coord::seconds(4);  // delayed messages, stalled disks
        demand([this] { return sim_.leader() != PeerId{}; }, patience, "a leader");
        demand([this] { return all_serve(); }, patience, "a replica that serves");
        const u64 writes = checker_.writes_acknowledged();
        const bool is_asked_for = profile_.are_all_deeds && !clients_.empty();
        const auto has_more = [this, writes] {
            return checker_.writes_acknowledged() > writes + 5;
        };
        if (is_asked_for) demand(has_more, coord::seconds(5), "a write");
        const Zxid frontier = checker_.model().frontier();
        demand([this, frontier] { return all_have(frontier); }, patience,
               "what is committed, everywhere,");
        demand([this] { return all_count(); }, patience, "a table with every storage");
    }

    // Sessions whose clients are gone expire; no other does, but one that was opened while a disk
    // stood still, which nobody could know of until then. Then silence.
    void come_to_rest() {
        const Duration longest = milliseconds(profile_.timeout_max_ms);
        pass(coord::seconds(2));
        if (stalled_until_ > sim_.now()) pass(stalled_until_ - sim_.now() + coord::seconds(1));
        checker_.forbid_expiry(true);
        pass(coord::seconds(1));
        resting_ = true;
        demand([this] { return no_open_ends(); }, coord::seconds(10), "the answer to a request");
        demand([this] { return only_live_sessions(); }, longest * 2 + coord::seconds(8),
               "the end of a session whose client is gone");
        demand([this] { return nothing_is_due(); },
               profile_.options.replica.timing.reap_interval * 3 + coord::seconds(15),
               "the end of what goes by itself");
        demand([this] { return all_have(checker_.model().frontier()); }, coord::seconds(5),
               "a quiet end");
        demand([this] { return all_is_read(); }, coord::seconds(15), "the end of a stream");
        // Who leaves a lock's queue does not wait for it: some of that may have come meanwhile. So
        // may a node's time, and then a reader has to read of it.
        demand([this] { return all_have(checker_.model().frontier()) && all_is_read(); },
               coord::seconds(15), "a quiet end of streams");
        if (!checker_.ok()) return;
        for (std::size_t i = 0; i < readers_.size(); i++) {
            if (readers_[i].stream && readers_[i].stream->error() == Errc::ok) check_stream(i);
            readers_[i].stream.reset();
        }
        is_over_ = true;
        for (const auto& client : clients_) {
            if (client->session) leave_if_over(*client);
            if (!client->session) continue;
            checker_.settled(client->who(), sim_.replica(client->home).machine().applied());
        }
        for (u32 id = 1; id <= profile_.replicas(); id++) compare(id);
        judge_registers();
    }
    void compare(u32 id) {
        coord::Replica& replica = sim_.replica(id);
        replica.audit();
        checker_.whole_state(id, replica.machine());
        checker_.caught_up(id, replica.machine().applied());
        checker_.state(id, replica.status().applied, replica.status().digest);
    }
    // P22. What is due at the time of the newest entry is so for the leader that numbered it. Of
    // what another leader's clock has said only the containers are certain to go.
    bool nothing_is_due() {
        const PeerId leader = sim_.leader();
        if (leader == PeerId{}) return false;
        const bool is_its_own = sim_.replica(leader.value).status().epoch ==
                                checker_.model().frontier().epoch();
        return checker_.model().due(is_its_own ? checker_.model().newest_ms() : 0).empty();
    }
    bool no_open_ends() {
        for (const auto& client : clients_) {
            if (client->opening || client->waiting > 0) return false;
        }
        return true;
    }
    bool only_live_sessions() {
        std::size_t live = 0;
        std::size_t open = 0;
        for (const auto& client : clients_) {
            const bool is_here = client->session && !client->session->is_local();
            const bool is_live =
                is_here && client->session->state() <= coord::SessionState::suspended;
            live += is_live ? 1u : 0u;
        }
        for (const auto& [id, session] : checker_.model().sessions())
            open += session.open ? 1u : 0u;
        return live == open;
    }

    // P14: the whole ensemble from its disks.
    void restart_all() {
        if (!checker_.ok()) return;
        checker_.forbid_expiry(false);
        const Zxid frontier = checker_.model().frontier();
        for (u32 id = 1; id <= profile_.replicas(); id++) sim_.crash(id);
        for (u32 id = 1; id <= profile_.replicas(); id++) restart(id);
        demand([this] { return all_serve(); },
               profile_.options.replica.timing.silence * 10 + coord::seconds(2),
               "an ensemble after a restart of all");
        // And what the new leader has numbered by itself.
        demand([this, frontier] {
            return all_have(frontier) && all_have(checker_.model().frontier());
        }, coord::seconds(5), "the same state after a restart of all");
        if (!checker_.ok()) return;
        for (u32 id = 1; id <= profile_.replicas(); id++) compare(id);
    }

    const Profile profile_;
    const coord::SimulationOptions options_;
    coord::Simulation sim_;
    Checker checker_;
    const u64 seed_;
    Rng work_;
    Rng faults_;
    Rng hints_;
    Rng hand_overs_;
    Rng streams_;
    std::vector<std::unique_ptr<Client>> clients_;
    std::vector<Reader> readers_;
    u64 resumed_ = 0;
    u64 cut_ = 0;
    bool is_over_ = false;  // nobody reads on
    std::map<u32, u64> starts_;
    PeerId failed_;
    std::vector<std::pair<SessionId, coord::SessionPassword>> known_;  // to be attached
    u64 attaches_ = 0;
    u64 locals_ = 0;
    u64 payloads_ = 0;
    u64 holders_ = 0;
    u64 steps_ = 0;
    std::deque<Question> questions_;
    std::map<std::size_t, coord::Time> changes_asked_;  // by question: those without an answer
    bool is_asked_ = false;     // and not seen yet, whether it was throttled
    u64 throttled_before_ = 0;
    u64 changes_ = UINT64_MAX;
    struct SeenEpochs {
        u32 id;
        const coord::Log::Epochs* durable;  // the replica's own
        u32 accepted, current;
    };
    std::vector<SeenEpochs> epochs_;  // of the replicas that run
    u64 listed_at_ = UINT64_MAX;      // the starts and crashes when they were
    std::vector<History> registers_;
    u64 moment_ = 0;
    u64 judged_ = 0;
    u64 unknown_ = 0;
    u64 given_up_ = 0;  // searches
    u64 next_fault_ = 0;
    std::vector<u64> faults_made_;  // by their numbers
    std::vector<u64> deeds_;        // of clients: slot * deeds_each + number
    Time stalled_until_;            // some disk
    u64 installs_ = 0;
    u64 recordings_ = 0;
    u64 handed_over_ = 0;
    u64 fed_ = 0;
    u64 newest_fed_ = 0;
    u64 relayed_ = 0;
    u64 hand_overs_failed_ = 0;
    u64 stops_ = 0;
    u64 leased_ = 0;  // of those that have crashed
    u64 wipes_ = 0;
    u64 admissions_ = 0;
    coord::VoterTable admitted_;  // as far as anybody has applied
    bool healing_ = false;  // no more faults
    bool resting_ = false;  // no more work
};

struct Arguments {
    u64 first = 1;
    u64 seeds = 100;
    bool one = false;
    bool trace = false;
    std::string trace_form = "text";
    bool only_trace = false;  // for a program that reads it
    bool self_test = false;
    bool load = false;
    u64 minutes = 0;
    u32 processes = 1;
    bool shrink = false;
    bool canary = false;
    std::string with;  // settings that are other than drawn
    u64 salt = 0;
    const char* faults = nullptr;  // null: all
    const char* deeds = nullptr;
};

// As they were given.
std::string changes_of(const Arguments& arguments) {
    std::string text = arguments.canary ? " --canary" : "";
    if (!arguments.with.empty()) text += " --with=" + arguments.with;
    if (arguments.salt != 0) text += " --salt=" + std::to_string(arguments.salt);
    if (arguments.faults != nullptr) text += std::string(" --faults=") + arguments.faults;
    if (arguments.deeds != nullptr) text += std::string(" --deeds=") + arguments.deeds;
    return text;
}

// What was drawn, and what the command line makes of it.
Profile profile_for(u64 seed, const Arguments& arguments) {
    Profile profile = arguments.load ? load_profile(seed) : draw_profile(seed);
    if (!apply_settings(profile, arguments.with)) {
        std::fprintf(stderr, "unknown setting: %s\n", arguments.with.c_str());
        std::exit(2);
    }
    profile.canary = arguments.canary;
    profile.salt = static_cast<u32>(arguments.salt);
    profile.are_all_faults = arguments.faults == nullptr;
    profile.are_all_deeds = arguments.deeds == nullptr;
    if (!profile.are_all_faults) profile.faults = list_of(arguments.faults);
    if (!profile.are_all_deeds) profile.deeds = list_of(arguments.deeds);
    return profile;
}

u64 cpu_us() { return static_cast<u64>(std::clock()) * 1000 / (CLOCKS_PER_SEC / 1000); }

Bytes trace_of(const coord::Simulation& simulation, const std::string& form) {
    if (form == "mermaid") return simulation.trace_mermaid();
    if (form == "shiviz") return support::Shiviz::of(simulation.trace_text());
    return simulation.trace_text();
}

// RETURNS whether all was well.
bool run_seed(u64 seed, const Arguments& arguments, Totals& totals) {
    const u64 start_us = cpu_us();
    const Profile profile = profile_for(seed, arguments);
    if (arguments.one && !arguments.only_trace) print_profile(seed, profile);
    const std::size_t lines = arguments.trace ? 10000000 : arguments.one ? 100 : 0;
    Run run(profile, seed, lines);
    bool well = run.go();
    const u64 hash = run.simulation().hash();
    if (well && seed % 50 == 0) {
        Run again(profile, seed, 0);
        (void)again.go();
        if (again.simulation().hash() != hash) {
            well = false;
            std::printf("seed %llu: P20: the same seed gives another run\n",
                        static_cast<unsigned long long>(seed));
        }
    }
    const Checker& checker = run.checker();
    const coord::SimulationCounters& c = run.simulation().counters();
    if (arguments.one && lines > 0) {
        std::printf("%s", trace_of(run.simulation(), arguments.trace_form).c_str());
    }
    if (arguments.only_trace) return well;
    if (arguments.one) std::printf("hash %016llx\n", static_cast<unsigned long long>(hash));
    for (const Bytes& each : checker.violations()) {
        std::printf("seed %llu: at %lld ms: %s\n", static_cast<unsigned long long>(seed),
                    static_cast<long long>(run.simulation().now().ns / 1000000), each.c_str());
    }
    if (!well) {
        std::printf("replay: sim_random --seed=%llu%s\n", static_cast<unsigned long long>(seed),
                    changes_of(arguments).c_str());
    }
    Totals own;
    own.seeds = 1, own.failures = well ? 0 : 1;
    own.simulated_ms = static_cast<u64>(run.simulation().now().ns / 1000000);
    own.writes = checker.writes_acknowledged(), own.reads = checker.reads_compared();
    own.events = checker.events(), own.elections = checker.elections();
    own.expiries = checker.expiries(), own.grants = checker.grants();
    own.reads_shared = checker.reads_shared(), own.downgrades = checker.downgrades();
    own.reaps = checker.reaps(), own.void_reaps = checker.void_reaps();
    own.specials = checker.specials(), own.taken_over = checker.taken_over();
    own.guarded = checker.guarded(), own.guards_lost = checker.guards_lost();
    own.messages = c.messages_sent, own.lost = c.messages_lost;
    own.repeated = c.messages_repeated, own.delayed = c.messages_delayed;
    own.damaged = c.messages_damaged, own.forged = c.messages_forged;
    own.cuts = c.cuts, own.crashes = c.crashes;
    own.wipes = run.wipes(), own.admissions = run.admissions();
    own.fed = run.fed(), own.relayed = run.relayed(), own.newest_fed = run.newest_fed();
    own.observers = profile.observers, own.reconfigs = run.checker().reconfigs();
    own.attaches = run.attaches(), own.locals = run.locals();
    own.upgrades = checker.upgrades(), own.upgrades_refused = checker.upgrades_refused();
    own.over_quota = checker.over_quota(), own.throttled = checker.throttled();
    own.refusals = checker.refusals(), own.silences = checker.silences();
    own.doubts = checker.doubts(), own.doubts_executed = checker.doubts_executed();
    own.records_lost = c.records_lost, own.pauses = c.pauses, own.stalls = c.stalls;
    own.hints = c.hints, own.hand_overs = run.handed_over();
    own.recordings = run.recordings();
    own.hand_overs_failed = run.hand_overs_failed(), own.stops = run.stops();
    own.leased = run.leased();
    own.streamed = checker.streamed(), own.resumed = run.resumed(), own.cut = run.cut();
    own.judged = run.judged(), own.unknown = run.unknown(), own.hash = hash;
    own.given_up = run.given_up();
    own.installs = run.installs(), own.steps = c.steps;
    own.cpu_us = cpu_us() - start_us;
    totals.add(own);
    return well;
}

double speed_of(const Totals& t) {
    return static_cast<double>(t.simulated_ms) * 1000 /
           static_cast<double>((std::max)(t.cpu_us, u64{1}));
}

void print_totals(const Totals& t, double seconds) {
    const auto n = [](u64 v) { return static_cast<unsigned long long>(v); };
    std::printf("seeds %llu, failures %llu, simulated %.2f h in %.1f s, %.0f s a second of CPU, "
                "steps %llu\n",
                n(t.seeds), n(t.failures), static_cast<double>(t.simulated_ms) / 3.6e6, seconds,
                speed_of(t), n(t.steps));
    std::printf("writes acknowledged %llu, reads compared %llu, events %llu, elections %llu, "
                "expiries %llu, reaps %llu and %llu void, lock grants %llu, shared %llu, "
                "downgrades %llu, guards that held %llu, "
                "that did not %llu, upserts and the like %llu, take-overs %llu, refused %llu, "
                "over a quota %llu, not told %llu, in doubt %llu and %llu executed\n",
                n(t.writes), n(t.reads), n(t.events), n(t.elections), n(t.expiries), n(t.reaps),
                n(t.void_reaps), n(t.grants), n(t.reads_shared), n(t.downgrades), n(t.guarded),
                n(t.guards_lost),
                n(t.specials), n(t.taken_over), n(t.refusals), n(t.over_quota),
                n(t.silences), n(t.doubts), n(t.doubts_executed));
    std::printf(
        "messages %llu, lost %llu, repeated %llu, delayed %llu, damaged %llu, "
        "forged %llu; links cut %llu; "
        "crashes %llu, records lost %llu; storages lost %llu, admissions %llu; observers %llu, "
        "in step by a feeder %llu times, requests relayed %llu, syncs there %llu; "
        "changes of members %llu; "
        "pauses %llu; disk stalls %llu; hints %llu; hand-overs %llu, in vain %llu; "
        "stops of rolling upgrades %llu; syncs under a lease %llu; snapshots installed %llu; "
        "sessions attached %llu; local %llu, "
        "writes that waited for an upgrade %llu, refused for that %llu; throttled %llu; "
        "changes streamed %llu, "
        "streams resumed %llu, cut %llu; "
        "calls in histories that were searched %llu, in doubt %llu, given up %llu; "
        "recordings replayed %llu\n"
        "hash of all %016llx\n",
        n(t.messages), n(t.lost), n(t.repeated), n(t.delayed), n(t.damaged), n(t.forged), n(t.cuts),
        n(t.crashes), n(t.records_lost), n(t.wipes), n(t.admissions), n(t.observers),
        n(t.fed), n(t.relayed), n(t.newest_fed), n(t.reconfigs),
        n(t.pauses), n(t.stalls),
        n(t.hints), n(t.hand_overs), n(t.hand_overs_failed), n(t.stops), n(t.leased), n(t.installs),
        n(t.attaches), n(t.locals), n(t.upgrades),
        n(t.upgrades_refused), n(t.throttled), n(t.streamed), n(t.resumed), n(t.cut),
        n(t.judged), n(t.unknown), n(t.given_up), n(t.recordings), n(t.hash));
}

double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Every processes-th seed.
Totals run_share(const Arguments& arguments, u64 share,
                 std::chrono::steady_clock::time_point start) {
    Totals totals;
    for (u64 i = share; i < arguments.seeds; i += arguments.processes) {
        if (arguments.minutes > 0 &&
            seconds_since(start) > 60.0 * static_cast<double>(arguments.minutes))
            break;
        (void)run_seed(arguments.first + i, arguments, totals);
        std::fflush(stdout);
    }
    return totals;
}

#ifdef SIM_HAS_FORK
// A process that dies of an assertion has printed the seed's number before.
Totals run_forked(const Arguments& arguments, std::chrono::steady_clock::time_point start) {
    Totals totals;
    std::vector<int> pipes;
    for (u32 share = 0; share < arguments.processes; share++) {
        int ends[2];
        if (pipe(ends) != 0) std::exit(2);
        const pid_t child = fork();
        if (child < 0) std::exit(2);
        if (child == 0) {
            const Totals own = run_share(arguments, share, start);
            const bool sent = write(ends[1], &own, sizeof own) == static_cast<ssize_t>(sizeof own);
            _exit(sent ? 0 : 1);
        }
        close(ends[1]);
        pipes.push_back(ends[0]);
    }
    for (const int from : pipes) {
        Totals own;
        if (read(from, &own, sizeof own) != static_cast<ssize_t>(sizeof own))
            own = Totals{}, own.failures = 1;
        totals.add(own);
        close(from);
    }
    while (wait(nullptr) > 0) {}
    return totals;
}
#endif

RunResult result_of(const Profile& profile, u64 seed) {
    Run run(profile, seed, 0);
    RunResult result;
    if (!run.go()) result.failure = failure_of(run.checker().violations().front());
    result.faults = run.faults(), result.deeds = run.deeds();
    return result;
}

#ifdef SIM_HAS_FORK
void put(int to, const void* bytes, std::size_t size) {
    const char* at = static_cast<const char*>(bytes);
    while (size > 0) {
        const ssize_t count = write(to, at, size);
        if (count <= 0) _exit(1);
        at += count, size -= static_cast<std::size_t>(count);
    }
}
Bytes get_all(int from) {
    Bytes all;
    char some[4096];
    for (ssize_t count; (count = read(from, some, sizeof some)) > 0;) {
        all.append(some, static_cast<std::size_t>(count));
    }
    return all;
}

// In a process of its own: an assertion that trips is a failure as any other. What hangs is none.
RunResult try_run(const Profile& profile, u64 seed) {
    int ends[2];
    std::fflush(stdout);
    if (pipe(ends) != 0) std::exit(2);
    const pid_t child = fork();
    if (child < 0) std::exit(2);
    if (child == 0) {
        alarm(120);
        if (std::freopen("/dev/null", "w", stderr) == nullptr) _exit(1);
        const RunResult result = result_of(profile, seed);
        Bytes bytes;
        coord::Writer out(bytes);
        out.bytes(result.failure);
        for (const auto* list : {&result.faults, &result.deeds}) {
            out.u64(list->size());
            for (const u64 number : *list) out.u64(number);
        }
        put(ends[1], bytes.data(), bytes.size());
        _exit(0);
    }
    close(ends[1]);
    const Bytes bytes = get_all(ends[0]);
    close(ends[0]);
    int status = 0;
    if (waitpid(child, &status, 0) != child) std::exit(2);
    RunResult result;
    if (WIFSIGNALED(status) && WTERMSIG(status) != SIGALRM) result.failure = "it ends by a signal";
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return result;
    coord::Reader in(bytes);
    result.failure = in.bytes(SIZE_MAX);
    for (auto* list : {&result.faults, &result.deeds}) {
        for (u64 count = in.u64(); count > 0 && in.left() > 0; count--) list->push_back(in.u64());
    }
    return result;
}
#else
RunResult try_run(const Profile& profile, u64 seed) { return result_of(profile, seed); }
#endif

int run_shrink(const Arguments& arguments) {
    const auto start = std::chrono::steady_clock::now();
    const u64 seed = arguments.first;
    Shrinking shrinking(profile_for(seed, arguments),
                        [seed](const Profile& profile) { return try_run(profile, seed); });
    if (!shrinking.go()) {
        std::printf("seed %llu does not fail\n", static_cast<unsigned long long>(seed));
        return 0;
    }
    const Profile drawn = profile_for(seed, arguments);
    const Profile& small = shrinking.profile();
    const RunResult &first = shrinking.first(), &last = shrinking.last();
    print_profile(seed, small);
    std::printf("%zu runs, %.1f s. Kinds of faults %zu -> %zu, faults %zu -> %zu, deeds of clients "
                "%zu -> %zu, replicas %u -> %u\n",
                shrinking.runs(), seconds_since(start), Shrinking::kinds(drawn),
                Shrinking::kinds(small), first.faults.size(), last.faults.size(),
                first.deeds.size(), last.deeds.size(), drawn.replicas(), small.replicas());
    std::printf("%s\n", first.failure.c_str());
    std::printf("replay: sim_random --seed=%llu%s\n", static_cast<unsigned long long>(seed),
                shrinking.command().c_str());
    const bool is_small = last.faults.size() <= 1 && last.deeds.size() <= 1;
    return arguments.canary && is_small ? 0 : 1;
}

// Each run for itself, so that a slow minute of the machine does not hide the others.
int run_load(const Arguments& arguments) {
    std::vector<double> speeds;
    Totals totals;
    const auto start = std::chrono::steady_clock::now();
    for (u64 i = 0; i < arguments.seeds; i++) {
        Totals own;
        (void)run_seed(arguments.first + i, arguments, own);
        totals.add(own);
        speeds.push_back(speed_of(own));
    }
    std::sort(speeds.begin(), speeds.end());
    print_totals(totals, seconds_since(start));
    const double seconds = static_cast<double>(totals.simulated_ms) / 1000;
    std::printf("a simulated second: writes %.0f, reads %.0f, messages %.0f\n",
                static_cast<double>(totals.writes) / seconds,
                static_cast<double>(totals.reads) / seconds,
                static_cast<double>(totals.messages) / seconds);
    std::printf("simulated seconds a second of CPU: min %.0f, median %.0f, max %.0f\n",
                speeds.front(), speeds[speeds.size() / 2], speeds.back());
    return totals.failures == 0 ? 0 : 1;
}

bool number_after(const char* argument, const char* name, u64& value) {
    const std::size_t length = std::strlen(name);
    if (std::strncmp(argument, name, length) != 0) return false;
    value = std::strtoull(argument + length, nullptr, 0);
    return true;
}

int run_all(const Arguments& arguments) {
    const auto start = std::chrono::steady_clock::now();
    Totals totals;
#ifdef SIM_HAS_FORK
    totals =
        arguments.processes > 1 ? run_forked(arguments, start) : run_share(arguments, 0, start);
#else
    totals = run_share(arguments, 0, start);
#endif
    if (!arguments.only_trace) print_totals(totals, seconds_since(start));
    return totals.failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace sim

int main(int argc, char** argv) {
    sim::Arguments arguments;
    for (int i = 1; i < argc; i++) {
        std::uint64_t value = 0;
        if (sim::number_after(argv[i], "--seed=", value)) {
            arguments.first = value, arguments.seeds = 1, arguments.one = true;
        } else if (sim::number_after(argv[i], "--seeds=", arguments.seeds) ||
                   sim::number_after(argv[i], "--first=", arguments.first) ||
                   sim::number_after(argv[i], "--minutes=", arguments.minutes)) {
            continue;
        } else if (sim::number_after(argv[i], "-j", value)) {
            arguments.processes = value == 0 ? 1 : static_cast<std::uint32_t>(value);
        } else if (sim::number_after(argv[i], "--salt=", arguments.salt)) {
            continue;
        } else if (std::strncmp(argv[i], "--with=", 7) == 0) {
            arguments.with = argv[i] + 7;
        } else if (std::strncmp(argv[i], "--faults=", 9) == 0) {
            arguments.faults = argv[i] + 9;
        } else if (std::strncmp(argv[i], "--deeds=", 8) == 0) {
            arguments.deeds = argv[i] + 8;
        } else if (std::strcmp(argv[i], "--shrink") == 0) {
            arguments.shrink = true;
        } else if (std::strcmp(argv[i], "--canary") == 0) {
            arguments.canary = true;
        } else if (std::strcmp(argv[i], "--trace") == 0) {
            arguments.trace = true;
        } else if (std::strncmp(argv[i], "--trace=", 8) == 0) {
            arguments.trace = true, arguments.trace_form = argv[i] + 8;
            arguments.only_trace = arguments.trace_form != "text";
        } else if (std::strcmp(argv[i], "--load") == 0) {
            arguments.load = true;
        } else if (std::strcmp(argv[i], "--self-test") == 0) {
            arguments.self_test = true;
        } else {
            std::fprintf(stderr, "unknown argument: %s\n", argv[i]);
            return 2;
        }
    }
    if (arguments.self_test) {
        return sim::self_test() == 0 && sim::register_self_test() == 0 ? 0 : 1;
    }
    if (arguments.load) return sim::run_load(arguments);
    if (arguments.shrink) return sim::run_shrink(arguments);
#ifndef SIM_HAS_FORK
    arguments.processes = 1;
#endif
    return sim::run_all(arguments);
}
