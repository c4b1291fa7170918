// Chapters 13 and 14 over a Service that is no replica: one that passes all on to a replica, and of
// one write says that nobody knows what became of it, as a client of servers elsewhere must when
// its connection breaks. Whether it has been executed is tried both ways.

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

#include "support.hpp"

namespace {

using coord::Access;
using coord::Bytes;
using coord::Completion;
using coord::Errc;
using coord::Grant;
using coord::milliseconds;
using coord::Request;
using coord::Result;
using coord::Session;
using coord::SessionId;
using coord::Sync;
using coord::Zxid;

class Doubtful final : public coord::Service {
public:
    explicit Doubtful(coord::Replica& replica) : replica_(replica) {}
    std::uint64_t writes = 0;       // so far
    std::uint64_t doubtful_at = 0;  // which of them, from 1
    bool is_executed = false;       // that one
    bool has_ended = false;         // it says that it has failed
    bool must_look_up = false;      // the first read after that must be of the newest state

    bool is_polling() const override { return replica_.is_polling(); }
    coord::Time now() const override { return replica_.now(); }
    bool has_failed() const override { return has_ended; }
    void at(coord::Time time, coord::Callback<void()> call) override {
        replica_.at(time, std::move(call));
    }
    void open_session(const coord::SessionOptions& options, coord::OnOpened done) override {
        replica_.open_session(options, std::move(done));
    }
    void attach_session(SessionId session, const coord::SessionPassword& password,
                        coord::OnOpened done) override {
        replica_.attach_session(session, password, std::move(done));
    }
    std::uint64_t session_holding(SessionId session) const override {
        return replica_.session_holding(session);
    }
    coord::SessionPassword session_password(SessionId session,
                                            std::uint64_t holding) const override {
        return replica_.session_password(session, holding);
    }
    void submit(SessionId session, Request&& request) override {
        const bool is_write = request.kind <= Request::Kind::set ||
                              request.kind == Request::Kind::multi;
        const bool is_look = request.kind == Request::Kind::children ||
                             request.kind == Request::Kind::exists;
        if (is_in_doubt_ && is_look) {
            CHECK(request.least == coord::newest);
            is_in_doubt_ = false;
        }
        if (is_write) writes += 1, is_in_doubt_ = must_look_up && writes == doubtful_at;
        if (!is_write || writes != doubtful_at) {
            return replica_.submit(session, std::move(request));
        }
        const Completion done = in_doubt(std::exchange(request.done, Completion()));
        if (is_executed) {
            request.done = done;
            return replica_.submit(session, std::move(request));
        }
        replica_.at(replica_.now(), [done] {
            using Kind = Completion::Kind;
            if (done.kind() == Kind::done) done(Result<void>());
            if (done.kind() == Kind::multi) done(coord::Multi());
            if (done.kind() == Kind::stat) done(Result<coord::Stat>(coord::Stat()));
            if (done.kind() == Kind::created) done(Result<coord::Created>(coord::Created()));
        });
    }
    coord::SessionState session_state(SessionId session, std::uint64_t holding) const override {
        return replica_.session_state(session, holding);
    }
    void on_session_state(SessionId session, coord::OnState listener,
                          std::uint64_t holding) override {
        replica_.on_session_state(session, std::move(listener), holding);
    }
    coord::Duration session_timeout(SessionId session) const override {
        return replica_.session_timeout(session);
    }
    coord::Time certain_until(SessionId session, std::uint64_t holding) const override {
        return replica_.certain_until(session, holding);
    }
    Zxid answer_zxid() const override { return replica_.answer_zxid(); }
    std::vector<coord::Unresolved> unresolved(SessionId session,
                                              std::uint64_t holding) const override {
        return replica_.unresolved(session, holding);
    }

private:
    // Takes whatever the answer is, and passes on that it is not known.
    static Completion in_doubt(const Completion& done) {
        switch (done.kind()) {
            case Completion::Kind::created:
                return coord::OnCreated([done](const Result<coord::Created>&) {
                    done(Result<coord::Created>(Errc::outcome_unknown));
                });
            case Completion::Kind::stat:
                return coord::OnStat([done](const Result<coord::Stat>&) {
                    done(Result<coord::Stat>(Errc::outcome_unknown));
                });
            case Completion::Kind::multi:
                return coord::OnMulti([done](const coord::Multi&) {
                    done(coord::Multi{Errc::outcome_unknown, {}});
                });
            case Completion::Kind::done:
                return coord::OnDone([done](const Result<void>&) {
                    done(Result<void>(Errc::outcome_unknown));
                });
            default: return done;
        }
    }
    coord::Replica& replica_;
    bool is_in_doubt_ = false;
};

struct Rig {
    explicit Rig(bool is_executed = false) { service.is_executed = is_executed; }
    bool poll() {
        now = now + milliseconds(1);
        replica.poll(now);
        replica.audit();
        return now < coord::Time{} + coord::seconds(6);
    }
    coord::Pump pump() {
        return [this] { return poll(); };
    }
    void run(int polls = 40) {
        for (int i = 0; i < polls; i++) poll();
    }
    Session open() {
        const auto opened = Sync::open(service, {}, pump());
        REQUIRE(opened);
        return *opened;
    }
    // Of the writes from here on the one of that place.
    void doubt(std::uint64_t place) { service.doubtful_at = service.writes + place; }
    bool has_doubted() const { return service.writes >= service.doubtful_at; }

    coord::MemoryStorage disk;
    coord::Replica replica{{}, disk};
    Doubtful service{replica};
    coord::Time now{1000000000};
};

// For each write that it makes, in doubt, executed and not.
template <class Body>
void each_in_doubt(Body&& body) {
    for (const bool is_executed : {true, false}) {
        std::uint64_t place = 1;
        for (bool is_more = true; is_more; place++) {
            REQUIRE(place < 40);
            INFO(place);
            INFO(is_executed);
            Rig rig(is_executed);
            body(rig, place);
            is_more = rig.has_doubted();
        }
        CHECK(place > 2);
    }
}

}  // namespace

TEST_SUITE("14 doubt") {

TEST_CASE("a session of what is no replica: the same calls, handles and Sync") {
    Rig rig;
    const Session session = rig.open();
    CHECK(&session.service() == &rig.service);
    const Sync zk(session, rig.pump());
    REQUIRE(zk.create("/a", "1"));
    CHECK(zk.below("/a").create("/b", "2")->path == "/b");
    CHECK(zk.linearizable().get("/a/b")->bytes == "2");
    CHECK(zk.guarded_by("/no", Zxid{1}).set("/a", "").error() == Errc::guard_lost);
    CHECK_FALSE(session.is_local());
    std::vector<Errc> told;
    const auto each = [&](const coord::Change& change) { told.push_back(change.error); };
    const coord::Subscription none = session.on_changes("/", {}, each);
    CHECK(none.error() == Errc::unimplemented);
    { const coord::Subscription dropped = session.on_changes("/", {}, each); }
    CHECK(told.empty());
    rig.poll();
    CHECK(told == std::vector<Errc>{Errc::unimplemented});
    CHECK(rig.service.replica() == nullptr);
    const auto plain = Sync::open(rig.replica, {}, rig.pump());
    REQUIRE(plain);
    CHECK(&plain->replica() == &rig.replica);
}

TEST_CASE("a program is told what is in doubt, and its session lives on") {
    Rig rig(true);
    const Sync zk(rig.open(), rig.pump());
    rig.doubt(1);
    CHECK(zk.create("/a", "").error() == Errc::outcome_unknown);
    CHECK(zk.linearizable().exists("/a"));
}

TEST_CASE("K8 a lock: acquired and released once, and no node stays behind") {
    each_in_doubt([](Rig& rig, std::uint64_t place) {
        const Session session = rig.open();
        const Sync zk(session, rig.pump());
        REQUIRE(zk.create("/locks", ""));
        coord::Lock lock(session, "/locks/door"), second(session, "/locks/door");
        rig.doubt(place), rig.service.must_look_up = place == 1;
        const auto grant = zk.wait<Grant>([&](auto done) { lock.acquire(done); });
        REQUIRE(grant);
        CHECK(zk.children("/locks/door")->names.size() == 1);
        CHECK(zk.exists(grant->node)->czxid.value == grant->fencing_token);
        std::vector<Errc> told;
        second.acquire([&](const Result<Grant>& next) { told.push_back(next.error()); });
        rig.run();
        CHECK(told.empty());
        REQUIRE(zk.wait<void>([&](auto done) { lock.release(done); }));
        rig.run();
        CHECK(told == std::vector<Errc>{Errc::ok});
        REQUIRE(zk.wait<void>([&](auto done) { second.release(done); }));
        rig.run();
        CHECK(zk.children("/locks/door")->names.empty());
    });
}

TEST_CASE("K8 a lock that is given up, or goes, while its create is in doubt leaves no node") {
    each_in_doubt([](Rig& rig, std::uint64_t place) {
        const Session session = rig.open();
        const Sync zk(session, rig.pump());
        REQUIRE(zk.create("/l", ""));
        rig.doubt(place);
        {
            coord::Lock gone(session, "/l");
            gone.acquire({});
        }
        coord::Lock lock(session, "/l");
        Errc released = Errc::too_many;
        lock.acquire({});
        lock.release([&](const Result<void>& done) { released = done.error(); });
        rig.run();
        CHECK(released == Errc::ok);
        CHECK(zk.children("/l")->names.empty());
    });
}

TEST_CASE("K8 what somebody removes meanwhile is lost, and not made again") {
    Rig rig(true);
    const Session session = rig.open();
    const Sync zk(session, rig.pump());
    REQUIRE(zk.create("/l", ""));
    coord::Lock lock(session, "/l");
    rig.doubt(1);
    Errc told = Errc::ok;
    lock.acquire([&](const Result<Grant>& grant) { told = grant.error(); });
    while (zk.children("/l")->names.empty()) rig.poll();
    for (const Bytes& name : zk.children("/l").value_or({}).names) (void)zk.remove("/l/" + name);
    rig.run();
    CHECK(told != Errc::outcome_unknown);
    CHECK((told == Errc::lock_lost || lock.is_held(rig.now)));
}

TEST_CASE("K8 a downgrade is done once") {
    each_in_doubt([](Rig& rig, std::uint64_t place) {
        const Session session = rig.open();
        const Sync zk(session, rig.pump());
        REQUIRE(zk.create("/l", ""));
        coord::ReadWriteLock lock(session, "/l");
        const auto write = zk.wait<Grant>([&](auto done) { lock.acquire(Access::write, done); });
        REQUIRE(write);
        rig.doubt(place), rig.service.must_look_up = place == 1;
        const auto read = zk.wait<Grant>([&](auto done) { lock.downgrade(done); });
        REQUIRE(read);
        CHECK(read->fencing_token == write->fencing_token);
        CHECK(zk.exists(read->node)->czxid == read->czxid);
        CHECK(zk.children("/l")->names.size() == 1);
        REQUIRE(zk.wait<void>([&](auto done) { lock.release(done); }));
        CHECK(zk.children("/l")->names.empty());
        // One that is released while it is in doubt.
        REQUIRE(zk.wait<Grant>([&](auto done) { lock.acquire(Access::write, done); }));
        lock.downgrade({});
        REQUIRE(zk.wait<void>([&](auto done) { lock.release(done); }));
        rig.run();
        CHECK(zk.children("/l")->names.empty());
    });
}

TEST_CASE("K8 barriers are raised, lowered, entered and left") {
    each_in_doubt([](Rig& rig, std::uint64_t place) {
        const Session session = rig.open();
        const Sync zk(session, rig.pump());
        rig.doubt(place);
        coord::Barrier barrier(session, "/b/one");
        REQUIRE(zk.wait<void>([&](auto done) { barrier.raise(done); }));
        CHECK(zk.exists("/b/one"));
        REQUIRE(zk.wait<void>([&](auto done) { barrier.lower(done); }));
        CHECK_FALSE(zk.exists("/b/one"));
        coord::DoubleBarrier one(session, "/b/two", 2), two(session, "/b/two", 2);
        int inside = 0, outside = 0;
        for (coord::DoubleBarrier* each : {&one, &two}) {
            each->enter([&](const Result<void>& entered) { inside += entered ? 1 : 0; });
        }
        rig.run(200);
        CHECK(inside == 2);
        for (coord::DoubleBarrier* each : {&one, &two}) {
            each->leave([&](const Result<void>& left) { outside += left ? 1 : 0; });
        }
        rig.run(200);
        CHECK(outside == 2);
        CHECK(zk.children("/b/two")->names.empty());
        {
            coord::DoubleBarrier gone(session, "/b/two", 2);
            gone.enter({});
        }
        rig.run();
        CHECK(zk.children("/b/two")->names.empty());
    });
}

TEST_CASE("a lock hears that what it is of has failed") {
    Rig rig(true);
    const Session session = rig.open();
    const Sync zk(session, rig.pump());
    REQUIRE(zk.create("/l", ""));
    coord::Lock lock(session, "/l");
    rig.doubt(1);
    rig.service.has_ended = true;
    Errc told = Errc::ok;
    lock.acquire([&](const Result<Grant>& grant) { told = grant.error(); });
    rig.run();
    CHECK(told == Errc::replica_failed);
}

}  // TEST_SUITE
