// coord 0.1.0: Apache ZooKeeper in one C++ header. MIT licence, see LICENSE.
//
// WHAT IT IS
//   A program includes this file, embeds a replica, and has coordination as ordinary calls in its
//   own process: a replicated tree of small nodes, sessions, nodes of every kind that it has,
//   watches, locks. Reads are memory accesses. Writes go through Zab to a majority of the replicas
//   and are executed exactly once, whichever leader dies meanwhile. The application moves the
//   bytes, reads the clock and calls poll; coord does the rest, the same way for the same seed.
//
// WHAT IT IS NOT
//   A server, a database, a message queue, a thread, a socket. It keeps the whole tree in memory,
//   wants values of kilobytes, and every voter sees every write. It trusts the replicas of its own
//   ensemble: a message of theirs that decodes is believed. With MemoryStorage an ensemble whose
//   replicas all stop has forgotten everything; FileStorage remembers. Not there yet: change of
//   membership, recipes beside locks and barriers.
//
// QUICK START
//   // main.cpp                              g++ -std=c++17 -I. main.cpp
//   #define COORD_IMPLEMENTATION             // in one file of the program
//   #include "coord.hpp"
//   #include <cstdio>
//
//   int main() {
//       coord::MemoryStorage disk;
//       coord::Replica replica({}, disk);    // standalone: an ensemble of one
//       coord::Time now;
//       auto pump = [&] {
//           now = now + coord::milliseconds(1);  // a program reads its monotonic clock here
//           replica.poll(now);
//           return true;
//       };
//       coord::Result<coord::Session> session = coord::Sync::open(replica, {}, pump);
//       if (!session) return 1;
//       coord::Sync zk(*session, pump);
//       if (!zk.create("/javaer", "www.javaer.com.cn")) return 1;
//       std::printf("%s\n", zk.get("/javaer")->bytes.c_str());
//   }
//
//   Three replicas are the same with ReplicaOptions{id, voters, ensemble, entropy} and a Transport
//   (examples/support/tcp_transport.hpp is one to copy). A program with a loop of its own does
//
//       when bytes arrive:       replica.receive(from, bytes);
//       once a turn:             replica.poll(now);    // callbacks run here, and nowhere else
//       how long it may sleep:   replica.next_deadline()
//
// HOW TO READ IT
//   Part One, inside the include guard, declares; every includer pays for it. Part Two, after the
//   guard, implements; only the file that defines COORD_IMPLEMENTATION compiles it. Both have the
//   chapters below, in this order, and a chapter uses only those above it. Each opens with its
//   purpose and its invariants; the invariants have numbers, and assertions cite them.
//
// Index
//   0  Configuration  the version, the assertion macro
//   1  Foundations    errors, results, ids, zxids, time, chance, limits
//   2  Codec          bytes in and out, checksum, hashes
//   3  Tree           nodes, paths, Stat, children in order, digest
//   4  Machine        transactions, who may do what, sessions' records, quotas, snapshot out and in
//   5  Watches        which watcher hears of which change; changes as a stream
//   6  Storage        the contract with what keeps bytes; in memory, in files, on a thread
//   7  Log            a replica's history and its two epochs; what of it is durable
//   8  Messages       the peer protocol as values and bytes; voters and quorums
//   9  Election       who should lead: a hint
//  10  Leader         discovery, synchronization, broadcast
//  11  Learner        the same, from the other side
//  12  Replica        the object that a program embeds; Transport
//  13  Session        the client's face; Sync, which waits
//  14  Recipes        the lock, one that readers share, barriers
//  15  Simulation     an ensemble in one thread: virtual time, faults, traces
// End of the index
//
// MACROS
//   COORD_IMPLEMENTATION    define it in one translation unit, before the include
//   COORD_ASSERT_HOOK(condition, file, line)  define it there too, to be called before the program
//                           is aborted because of a bug in coord. Nothing else ever aborts.
//   COORD_NO_FILES          everywhere or nowhere: no FileStorage and no header of the system.
//   COORD_NO_THREADS        everywhere or nowhere: no BackgroundStorage, and no thread at all.
//                           Without it a libc older than glibc 2.34 wants -pthread.
//   COORD_AUDIT             everywhere or nowhere: after each poll a replica audits its whole
//                           state. For debugging: the cost is as the state is large.
//   COORD_VERSION_MAJOR, _MINOR, _PATCH  defined here; COORD_ASSERT, _ABI and _RARE are internal.
//
// RULES FOR CALLERS
//   Threads     A replica, its sessions and its storage belong to one thread at a time: the one
//               that polls. coord has no global state, and no thread and no lock but those that
//               a BackgroundStorage keeps to itself.
//   Callbacks   run inside poll, after everything else in it. They may call anything but poll, and
//               may not destroy the replica. Their arguments live as long as the call.
//   Views       A BytesView that is passed in is lent for the call; one that comes out lives until
//               the next poll.
//   Errors      come as Errc, through Result or a callback: name(errc), and text(errc) says what
//               to do. No exceptions, no errno. What a peer or a disk sends wrong is counted or
//               stops the replica (Role::failed, with a reason); it never ends the program.
//   Memory      comes from operator new alone; where that throws or aborts, so does the call. All
//               that can pile up is bounded: Limits, and the constants named *_max.
//   Time        is the caller's monotonic clock. A clock that stands still or goes back is
//               harmless; one that leaps costs an election.
//   Entropy     is the caller's: ReplicaOptions::entropy, another random number at each start.
//
// OBSERVERS
//   A replica whose id is not among its ReplicaOptions::voters observes (Role::observing). It finds
//   out from the voters who leads, learns from the leader what is committed, keeps a log and
//   snapshots, and serves sessions as every other replica does. It has no vote, and nothing waits
//   for it: there may be hundreds (Limits::observers_max), far away, that come and go, and the
//   voters need not know of them beforehand; only their transport must reach them. Each costs the
//   leader what it sends: a message for what was committed since the one before was received. A
//   write that is asked for there takes the way to the leader and back.
//
// THE IDENTITY OF A VOTER
//   What a voter has promised and acknowledged is in its storage. So a voter counts only with the
//   storage that the ensemble has admitted: each storage has an id, drawn at its birth, and the
//   ensemble keeps a table of them as it keeps the tree.
//   A new ensemble  is founded when all of its voters are there, once; from then on a majority is
//                   enough. A replica with ReplicaOptions::may_found = false takes no part in that.
//   A storage lost  (wiped, or damaged and set aside) is another storage: the replica learns from a
//                   leader, counts for nothing, and is admitted again, without anybody's doing,
//                   when it is in step: ReplicaStatus::admitted. Until then one failure less is
//                   borne. ReplicaStatus::damage says what could not be read.
//   A storage that comes back after another one took its place fails by name. So does one of two
//                   that live under one id, and one that has lost what its leader knows it had.
//   What is lost    Where a majority of the storages is gone, the rest cannot tell what was
//                   acknowledged: they stand still, with a reason, and do not begin anew. All that
//                   can be done then is to wipe every storage. Voters whose storages are all wiped
//                   found a new ensemble, if they may. An older image of a storage that comes back
//                   while nobody leads is not noticed: never restore one; wipe it.
//
// WHOM A REPLICA BELIEVES
//   Its peers     Without ReplicaOptions::ensemble_keys whoever can send as a replica is believed:
//                 such an ensemble belongs on a network where only replicas are. With them each
//                 message has a seal that nobody makes without a key. What has none, or a wrong
//                 one, was sealed for another ensemble, replica, direction or life, or comes for a
//                 second time, changes nothing: ReplicaCounters::dropped_unsealed and
//                 dropped_replayed. There is no mode that lets what is not sealed pass.
//   Who has a key is trusted, as the other replicas are: it may lie about what it holds and has
//                 promised, and so undo what is committed. It cannot end the program: what it
//                 sends is judged, bounded and dropped as all bytes are.
//   Who sits on the wire, without a key, may drop, delay, repeat and reorder, as every network
//                 does. It costs time, and with enough of it the ensemble stands still. So may a
//                 flood: coord bounds what one costs between two polls, and not what it displaces.
//   Not protected Secrecy: a seal hides nothing, and data, paths and credentials of add_auth can be
//                 read on the wire; TLS, DTLS or QUIC under the transport hides them. Messages that
//                 are held back, until the replica that they are for has another life. The storage:
//                 who writes to its files is believed. The memory of the program, where the keys
//                 are. A key that has become known: until it is changed all that is above.
//   Clients       are in the program, and believed: see the next section.
//   Keys          32 bytes from the system's source of randomness, in all replicas the same, from
//                 a file that only the program can read. One is changed in three rounds of
//                 restarts: {old, new}, then {new, old}, then {new}. No message, log line, counter
//                 or text has a part of one. ReplicaOptions::entropy must be another at each start:
//                 two lives with one nonce would be one.
//   The seal      is SipHash-2-4 of 128 bits: a function for exactly this, twenty lines, without a
//                 known weakness, at three times what CRC32C by instruction costs. HMAC-SHA-256 in
//                 portable C++ costs forty times that, and would be most of what a write costs.
//
// WHAT A REPLICA SAYS OF ITSELF
//   Replica::describe() is for a person, state_json() for a program, visit_metrics() for what
//   collects numbers; status() and counters() are the same as fields. A ReplicaObserver's on_log
//   hears what an operator wants in a log: LogCode is the table. All of it only looks.
//
// GLOSSARY
//   ensemble    the replicas that keep one tree.        voter     a replica that counts.
//   observer    a replica that is no voter.
//   quorum      more than half of the voters.           epoch     the reign of one leader.
//   zxid        the number of a transaction: (epoch, counter). Every write attempt that is
//               numbered takes one, also one that fails.
//   history     the transactions of a log, in order.    durable   would survive a crash now.
//   committed   durable at a quorum: it will be in every later leader's history.
//   applied     executed on the tree; only what is committed and durable here is.
//   established a leader whose whole history is durable at a quorum: it serves.
//   session     the life of a client, decided upon by the ensemble; owns ephemeral nodes.
//   cxid        a session's number for a write, from 1 with each of its holders, and the count of
//               those before. The ensemble executes each once.
//   holder      of a session: the replica that opened it, or attached it last.
//   local       of a session: at one replica alone, without a record that others have, until it
//               writes. Then it is upgraded: opened for all under the id that it has.
//   position    in the changes: a zxid, and how many of its changes are behind.
//   nonce       a random number that tells one start, or one request to open, from another.
//   guard       a node, by its path and czxid, without which a write is not to take effect.
//   admitted    of a storage: in the table of those that count.
//   reap        the removal of a node that goes by itself: a container, or one with a ttl.
//
// WHO MAY DO WHAT
//   Each node has an ACL: coord::Acl, given to create or set_acl. A session's identities are
//   judged where add_auth is called, and are part of its record from then on: every replica judges
//   every write alike, and none knows a password. What a session may not read no answer and no
//   event shows it. But a program that embeds a replica has the whole tree in its memory, and its
//   peers believe it: ACLs divide those whom programs serve, and not the programs.
//
// HOW MUCH THERE MAY BE
//   A node /zookeeper/quota/some/path/zookeeper_limits puts a quota on /some/path and all below it:
//   its data is countHardLimit=N;byteHardLimit=N, or one of these. What would pass that gets
//   quota_exceeded. count=N and bytes=N refuse nothing: ReplicaCounters::over_quota. What there is
//   a node zookeeper_stats beside it says, where there is one: its data is written by the machine.
//
// WHERE IT DIFFERS FROM ZOOKEEPER, ON PURPOSE
//   A write ends in success, in its own error, or with its session, in session_expired or
//   session_moved, and then it has not been executed and never will be: never in connection_loss.
//   Where that is not known, which takes a replica that was far behind or has failed, it is
//   outcome_unknown, and Session::unresolved has the list.
//   /zookeeper/config has a line for each voter, without addresses, which the program alone knows,
//   and the zxid since when they are the voters. Its version counts, and super cannot set it.
//   Quotas are ZooKeeper's nodes, always enforced, by all replicas alike; a multi's parts see what
//   those before them have counted, and what is counted is never off. A text that is none, with
//   which a ZooKeeper ends, is no quota.
//   Sequence numbers have 64 bits. A version never becomes -1. zxids are 24 + 40 bits and never
//   repeat. sync is a round of a quorum, so that sync and then a read is linearizable, and a read
//   can be by itself. Children are listed in order, in pages, by prefix, with their data, and
//   several reads are of one moment. Changes come as a stream, too, with their data, that goes on
//   at any replica; watchers are set again as of a zxid. A ttl runs on the time of the
//   transactions, is judged by every replica alike, and needs no option. A limit gives an error
//   and keeps the session. A session answers until when it certainly lives (certain_until), and a
//   lock has a fencing token. For how long a session has been silent the next leader knows, so that
//   leaders who change often keep no dead session; many that end at once do so in small parts.
//   A multi has conditions beside check, and what clients do there in several writes that race:
//   create_or_set, create_with_parents, remove_all, take_over. A write can be guarded by a lock's
//   node, and is not done when that has gone.
//   set_acl may be a part of a multi; ip knows addresses of v6; what is no permission is no ACL; a
//   wrong credential does not end the session, whose identities go with it to another leader.
//   A local session is one by SessionOptions::is_local, and not by the server's. Any write upgrades
//   it, not the first ephemeral node alone, since what is executed once is kept in its record; so
//   ephemeral_on_local_session is given to nobody. It needs no leader, and does not expire.
#ifndef COORD_HPP
#define COORD_HPP

// =================================================================================================
// Part One, chapter 0: Configuration
// =================================================================================================
// Purpose    The version, the assertion macro, and the few macros there are.
// Invariants No macro changes a type or the body of an inline function, but COORD_AUDIT, which is
//            part of the inline namespace's name: mixing it between two files does not link.
// May touch  The preprocessor.
// Reading    The table of macros in the manual above.

#define COORD_VERSION_MAJOR 0
#define COORD_VERSION_MINOR 1
#define COORD_VERSION_PATCH 0

#ifdef COORD_AUDIT
#define COORD_ABI v0_audit
#else
#define COORD_ABI v0
#endif

// An assertion trips on a bug in coord alone, never on the bytes of a peer, a disk or a user. It
// is on in release builds. What happens then is COORD_ASSERT_HOOK's, which only Part Two reads.
#define COORD_ASSERT(condition) \
    ((condition) ? void() : ::coord::detail::assert_failed(#condition, __LINE__))

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace coord {
inline namespace COORD_ABI {
namespace detail {
[[noreturn]] void assert_failed(const char* condition, int line);
[[noreturn]] void index_failed();
}  // namespace detail

// =================================================================================================
// Part One, chapter 1: Foundations
// =================================================================================================
// Purpose    The words that every other chapter is written in: bytes, errors, ids, time, chance,
//            limits.
// Invariants An id has no arithmetic. Time is an argument and never read. A generator with the
//            same seed gives the same numbers on every compiler and word size.
// May touch  Values.
// Reading    ZooKeeper's error codes: KeeperException.Code.

using Bytes = std::string;           // owned bytes, of any content
using BytesView = std::string_view;  // borrowed bytes: a parameter, never kept past the call

namespace detail {
inline constexpr char null_place[2] = {};
}  // namespace detail

// A node's data may be null, which ZooKeeper keeps apart from no bytes: so it is where this very
// view is given, and no other view of nothing is it. A copy of it, as Bytes, is empty. It is in the
// middle: what lies beside the place in memory may end at its edge, and so may views of that.
inline constexpr BytesView null_data{detail::null_place + 1, 0};
constexpr bool is_null(BytesView data) { return data.data() == null_data.data(); }

// Why a call did not do what it says. Codes from -127 to 0 are ZooKeeper's, with its meaning;
// those from -1000 down are coord's own. The text of each says what to do about it.
enum class Errc : std::int32_t {
    ok = 0,
    system_error = -1,
    runtime_inconsistency = -2,
    data_inconsistency = -3,
    connection_loss = -4,
    marshalling_error = -5,
    unimplemented = -6,
    operation_timeout = -7,
    bad_arguments = -8,
    unknown_session = -12,
    new_config_no_quorum = -13,
    reconfig_in_progress = -14,
    api_error = -100,
    no_node = -101,
    no_auth = -102,
    bad_version = -103,
    no_children_for_ephemerals = -108,
    node_exists = -110,
    not_empty = -111,
    session_expired = -112,
    invalid_callback = -113,
    invalid_acl = -114,
    auth_failed = -115,
    session_moved = -118,
    not_read_only = -119,
    ephemeral_on_local_session = -120,
    no_watcher = -121,
    request_timeout = -122,
    reconfig_disabled = -123,
    session_closed_require_sasl_auth = -124,
    quota_exceeded = -125,
    throttled_op = -127,
    too_large = -1001,       // a path, value, request or session timeout is over its limit
    too_many = -1002,        // a bound on sessions, requests in flight, watches or nodes is reached
    corrupt = -1003,         // bytes that are not what coord wrote
    storage_failed = -1004,  // the storage refused or lost something; the replica has stopped
    replica_failed = -1005,  // the replica has stopped; ReplicaStatus::reason says why
    cancelled = -1006,       // the caller took the request back
    lock_busy = -1007,       // try_acquire: somebody else holds the lock
    lock_lost = -1008,       // the lock's node or its session is gone: stop what it guards
    storage_full = -1009,    // no space left: writes are refused until there is
    storage_locked = -1010,  // another process, or another replica, uses the storage
    condition_failed = -1011,  // the node is there, and is not what the condition asks for
    guard_lost = -1012,      // what guards the write is gone: nothing was done, nor will be
    snapshot_needed = -1013,  // the changes kept do not go back so far: read, and go on from there
    outcome_unknown = -1014,  // of a write: its session ended, or its replica, and it may be done
};

// RETURNS the enumerator's name, and a sentence that says what the caller can do. Both live for
// ever; an unknown code gets "unknown".
const char* name(Errc code);
const char* text(Errc code);

// A value, or the reason why there is none. Asking for the value that is not there is a bug.
template <class T>
class [[nodiscard]] Result {
public:
    Result(T value) : error_(Errc::ok) { place(std::move(value)); }
    Result(Errc error) : error_(error) { COORD_ASSERT(error != Errc::ok); }
    Result(const Result& other) : error_(other.error_) {
        if (other) place(T(other.value_));
    }
    Result(Result&& other) noexcept : error_(other.error_) {
        if (other) place(std::move(other.value_));
    }
    Result& operator=(Result other) noexcept {
        if (*this) value_.~T();
        error_ = other.error_;
        if (other) place(std::move(other.value_));
        return *this;
    }
    ~Result() {
        if (*this) value_.~T();
    }

    explicit operator bool() const { return error_ == Errc::ok; }
    Errc error() const { return error_; }
    const T& value() const { return COORD_ASSERT(error_ == Errc::ok), value_; }
    T& value() { return COORD_ASSERT(error_ == Errc::ok), value_; }
    T value_or(T other) const { return *this ? value_ : std::move(other); }
    const T& operator*() const { return value(); }
    T& operator*() { return value(); }
    const T* operator->() const { return &value(); }
    T* operator->() { return &value(); }

private:
    void place(T&& value) { ::new (static_cast<void*>(&value_)) T(std::move(value)); }
    union {
        T value_;  // there where error_ is ok. std::optional would take longer to compile
    };
    Errc error_;
};

template <>
class [[nodiscard]] Result<void> {
public:
    Result() = default;
    Result(Errc error) : error_(error) {}

    explicit operator bool() const { return error_ == Errc::ok; }
    Errc error() const { return error_; }

private:
    Errc error_ = Errc::ok;
};

namespace detail {

// What every kind of Callback is made of, so that one more kind adds little to compile.
class AnyCallback {
public:
    AnyCallback() = default;
    AnyCallback(const AnyCallback& other);
    AnyCallback(AnyCallback&& other) noexcept { *this = std::move(other); }
    AnyCallback& operator=(const AnyCallback& other) { return *this = AnyCallback(other); }
    AnyCallback& operator=(AnyCallback&& other) noexcept;
    ~AnyCallback() {
        if (manage_ != nullptr) manage_(place_.heap, false);
    }

    explicit operator bool() const { return entry_ != nullptr; }
    friend bool operator==(const AnyCallback& a, std::nullptr_t) { return a.entry_ == nullptr; }
    friend bool operator!=(const AnyCallback& a, std::nullptr_t) { return a.entry_ != nullptr; }
    // REQUIRES that it is not empty, and was made as a Callback<R(Args...)>.
    template <class R, class... Args>
    R call(Args&&... args) const {
        COORD_ASSERT(entry_ != nullptr);
        using Typed = R (*)(const Place&, Args&&...);
        return reinterpret_cast<Typed>(entry_)(place_, static_cast<Args&&>(args)...);
    }

protected:
    using Entry = void (*)();                             // stands for a function of any type
    using Manage = void* (*)(void* callable, bool copy);  // RETURNS a copy, or deletes it
    union Place {
        void* heap;
        unsigned char bytes[2 * sizeof(void*)];
    };
    // What is small and has nothing to destroy is kept in place: nothing is allocated for it.
    template <class F>
    static constexpr bool fits = sizeof(F) <= sizeof(Place) && alignof(F) <= alignof(Place) &&
                                 std::is_trivially_copyable_v<F>;

    Place place_{nullptr};
    Manage manage_ = nullptr;  // null: nothing is on the heap
    Entry entry_ = nullptr;    // null: empty
};

}  // namespace detail

// Something to call: any callable that can be copied, or nothing. For coord it is what
// std::function is, and takes a fraction of the time to compile.
template <class Signature>
class Callback;

template <class R, class... Args>
class Callback<R(Args...)> : public detail::AnyCallback {
public:
    Callback() = default;
    Callback(std::nullptr_t) {}
    template <class F, class Callable = std::decay_t<F>,
              class = std::enable_if_t<!std::is_base_of_v<Callback, Callable> &&
                                       std::is_invocable_r_v<R, Callable&, Args...>>>
    Callback(F&& f) {
        if constexpr (std::is_constructible_v<Callable, std::nullptr_t>) {
            if (!f) return;  // nothing, of another type
        }
        if constexpr (fits<Callable>) {
            ::new (static_cast<void*>(place_.bytes)) Callable(static_cast<F&&>(f));
        } else {
            place_.heap = new Callable(static_cast<F&&>(f));
            manage_ = &manage<Callable>;
        }
        entry_ = reinterpret_cast<Entry>(&enter<Callable>);
    }

    // REQUIRES that it is not empty.
    R operator()(Args... args) const {
        return call<R, Args...>(static_cast<Args&&>(args)...);
    }

private:
    template <class Callable>
    static R enter(const Place& place, Args&&... args) {
        void* const callable =
            fits<Callable> ? const_cast<unsigned char*>(place.bytes) : place.heap;
        return static_cast<R>((*static_cast<Callable*>(callable))(static_cast<Args&&>(args)...));
    }
    template <class Callable>
    static void* manage(void* callable, bool copy) {
        Callable* const held = static_cast<Callable*>(callable);
        if (copy) return new Callable(*held);
        delete held;
        return nullptr;
    }
};

// A number that names something. Ids compare and copy; nothing is added to them.
template <class Tag, class Rep>
struct Id {
    Rep value = 0;

    constexpr Id() = default;
    constexpr explicit Id(Rep number) : value(number) {}
    friend constexpr bool operator==(Id a, Id b) { return a.value == b.value; }
    friend constexpr bool operator!=(Id a, Id b) { return a.value != b.value; }
    friend constexpr bool operator<(Id a, Id b) { return a.value < b.value; }
};

using PeerId = Id<struct PeerTag, std::uint32_t>;        // a replica; 0 is nobody
// The zxid that opened it, or of one that is, or was, local a drawn number; 0 is nobody.
using SessionId = Id<struct SessionTag, std::uint64_t>;

// The place of a transaction in the history: epoch in the high 24 bits, counter in the low 40.
// The first transaction of an epoch has counter 1. 0 is before everything.
struct Zxid {
    static constexpr std::uint64_t counter_max = (std::uint64_t{1} << 40) - 1;
    static constexpr std::uint32_t epoch_max = (std::uint32_t{1} << 24) - 1;
    std::uint64_t value = 0;

    constexpr Zxid() = default;
    constexpr explicit Zxid(std::uint64_t number) : value(number) {}
    constexpr Zxid(std::uint32_t epoch, std::uint64_t counter)
        : value((std::uint64_t{epoch} << 40) | counter) {}
    constexpr std::uint32_t epoch() const { return static_cast<std::uint32_t>(value >> 40); }
    constexpr std::uint64_t counter() const { return value & counter_max; }
    friend constexpr bool operator==(Zxid a, Zxid b) { return a.value == b.value; }
    friend constexpr bool operator!=(Zxid a, Zxid b) { return a.value != b.value; }
    friend constexpr bool operator<(Zxid a, Zxid b) { return a.value < b.value; }
    friend constexpr bool operator>(Zxid a, Zxid b) { return a.value > b.value; }
    friend constexpr bool operator<=(Zxid a, Zxid b) { return a.value <= b.value; }
    friend constexpr bool operator>=(Zxid a, Zxid b) { return a.value >= b.value; }
};

// A stretch of time, in nanoseconds.
struct Duration {
    std::int64_t ns = 0;

    friend constexpr bool operator==(Duration a, Duration b) { return a.ns == b.ns; }
    friend constexpr bool operator!=(Duration a, Duration b) { return a.ns != b.ns; }
    friend constexpr bool operator<(Duration a, Duration b) { return a.ns < b.ns; }
    friend constexpr bool operator>(Duration a, Duration b) { return a.ns > b.ns; }
    friend constexpr bool operator<=(Duration a, Duration b) { return a.ns <= b.ns; }
    friend constexpr bool operator>=(Duration a, Duration b) { return a.ns >= b.ns; }
    friend constexpr Duration operator+(Duration a, Duration b) { return {a.ns + b.ns}; }
    friend constexpr Duration operator-(Duration a, Duration b) { return {a.ns - b.ns}; }
    friend constexpr Duration operator*(Duration a, std::int64_t n) { return {a.ns * n}; }
    friend constexpr Duration operator/(Duration a, std::int64_t n) { return {a.ns / n}; }
};

constexpr Duration nanoseconds(std::int64_t n) { return {n}; }
constexpr Duration microseconds(std::int64_t n) { return {n * 1000}; }
constexpr Duration milliseconds(std::int64_t n) { return {n * 1000000}; }
constexpr Duration seconds(std::int64_t n) { return {n * 1000000000}; }

// A moment on a clock that the caller reads: monotonic, of any origin, in nanoseconds. Only
// differences mean anything, and only within one process.
struct Time {
    std::int64_t ns = 0;

    friend constexpr bool operator==(Time a, Time b) { return a.ns == b.ns; }
    friend constexpr bool operator!=(Time a, Time b) { return a.ns != b.ns; }
    friend constexpr bool operator<(Time a, Time b) { return a.ns < b.ns; }
    friend constexpr bool operator>(Time a, Time b) { return a.ns > b.ns; }
    friend constexpr bool operator<=(Time a, Time b) { return a.ns <= b.ns; }
    friend constexpr bool operator>=(Time a, Time b) { return a.ns >= b.ns; }
    friend constexpr Time operator+(Time a, Duration d) { return {a.ns + d.ns}; }
    friend constexpr Time operator-(Time a, Duration d) { return {a.ns - d.ns}; }
    friend constexpr Duration operator-(Time a, Time b) { return {a.ns - b.ns}; }
};

constexpr Time never{INT64_MAX};

// A seeded generator (splitmix64): the only chance there is in coord.
class Rng {
public:
    explicit Rng(std::uint64_t seed) : state_(seed) {}
    std::uint64_t next();
    std::uint64_t below(std::uint64_t bound);           // REQUIRES bound > 0; RETURNS 0 .. bound-1
    bool chance(std::uint32_t permille);                // true in permille of 1000 cases
    std::uint64_t between(std::uint64_t low, std::uint64_t high);  // low .. high, both included

private:
    std::uint64_t state_;
};

// What a replica will hold and take at the most. Each bound has its error, given before a request
// is numbered; none refuses a heartbeat, a close or a delete. All replicas of an ensemble need
// the same. One request and one value must fit in a message of the transport.
struct Limits {
    std::uint32_t path_bytes_max = 1024;            // too_large
    std::uint32_t data_bytes_max = 1024 * 1024 - 1;  // too_large; ZooKeeper's jute.maxbuffer
    std::uint32_t nodes_max = 64u * 1024 * 1024;    // too_many
    std::uint32_t sessions_max = 65536;             // too_many
    std::uint32_t local_sessions_max = 65536;       // too_many: at one replica
    std::uint32_t ephemerals_per_session_max = 65536;  // too_many
    std::uint32_t requests_per_session_max = 1024;  // too_many; twice as many removes
    std::uint32_t watches_per_session_max = 65536;  // too_many
    // Children in one answer; page for more. Nodes counted, by descendants and by a new quota.
    std::uint32_t list_max = 65536;
    std::uint32_t answer_bytes_max = 4 * 1024 * 1024;  // of data in one; but a whole node always
    std::uint32_t multi_parts_max = 1024;           // too_many; guards are parts, too
    std::uint32_t removals_max = 4096;  // nodes that remove_all takes in one transaction: too_large
    std::uint32_t acl_entries_max = 128;            // too_many
    std::uint32_t acl_id_bytes_max = 1024;          // too_large
    std::uint32_t acls_max = 1024 * 1024;           // too_many: distinct ones, with their aversion
    std::uint32_t identities_per_session_max = 64;  // too_many
    std::uint32_t observers_max = 256;  // that a leader takes on; others go on looking for one
};

namespace detail {

// An object on the heap, or with Owned<T[]> an array of them: std::unique_ptr in all that coord
// needs of it, for a fraction of its time to compile.
template <class T>
class Owned {
public:
    using Item = std::remove_extent_t<T>;
    Owned() = default;
    explicit Owned(Item* item) : item_(item) {}
    Owned(Owned&& other) noexcept : item_(other.item_) { other.item_ = nullptr; }
    Owned& operator=(Owned other) noexcept { return std::swap(item_, other.item_), *this; }
    ~Owned() {
        if constexpr (std::is_array_v<T>) {
            delete[] item_;
        } else {
            delete item_;
        }
    }

    explicit operator bool() const { return item_ != nullptr; }
    Item* get() const { return item_; }
    Item* operator->() const { return item_; }
    Item& operator*() const { return *item_; }
    Item& operator[](std::size_t i) const { return item_[i]; }

private:
    Item* item_ = nullptr;
};

// An object on the heap for as long as somebody holds it, on whatever thread: std::shared_ptr in
// all that coord needs of it. Part Two makes it, with share, and counts who holds it.
struct Holders;
void hold(Holders* holders);    // one more; both do nothing with null
void let_go(Holders* holders);  // the last one destroys it

template <class T>
class Shared {
public:
    Shared() = default;
    Shared(std::nullptr_t) {}
    Shared(T* item, Holders* holders) : item_(item), holders_(holders) {}  // counted already
    Shared(const Shared& other) : Shared(other, other.item_) {}
    Shared(Shared&& other) noexcept { swap(other); }
    // Holds what the other does, and is a piece of it.
    template <class Whole>
    Shared(const Shared<Whole>& whole, T* item) : Shared(item, whole.holders()) {
        hold(holders_);
    }
    Shared& operator=(Shared other) noexcept { return swap(other), *this; }
    ~Shared() { let_go(holders_); }

    explicit operator bool() const { return item_ != nullptr; }
    T* operator->() const { return item_; }
    T& operator*() const { return *item_; }
    Holders* holders() const { return holders_; }

private:
    void swap(Shared& other) {
        std::swap(item_, other.item_), std::swap(holders_, other.holders_);
    }
    T* item_ = nullptr;
    Holders* holders_ = nullptr;
};

// So many objects as it was made with.
template <class T>
class Array {
public:
    Array() = default;
    explicit Array(std::size_t size) : items_(new T[size]()), size_(size) {}

    std::size_t size() const { return size_; }
    T& operator[](std::size_t i) { return COORD_ASSERT(i < size_), items_[i]; }
    const T& operator[](std::size_t i) const { return COORD_ASSERT(i < size_), items_[i]; }
    T* begin() { return items_.get(); }
    T* end() { return items_.get() + size_; }
    const T* begin() const { return items_.get(); }
    const T* end() const { return items_.get() + size_; }

private:
    Owned<T[]> items_;
    std::size_t size_ = 0;
};

// What of a Ring is the same whatever it holds, so that it is compiled once: arrays of items, by
// their addresses. A Kind is what it must know of the items.
class RingBase {
public:
    bool empty() const { return size_ == 0; }
    std::size_t size() const { return size_; }
    void pop() {
        if (size_ == 0) index_failed();
        head_ += 1, size_ -= 1;
    }
    void pop_back() { place(size_ - 1), size_ -= 1; }
    void clear() { head_ = 0, size_ = 0; }

protected:
    struct Kind {
        void* (*make)(std::size_t count);
        void (*destroy)(void* items);
        void (*move)(void* to, std::size_t to_place, void* from, std::size_t from_place);
    };
    RingBase() = default;
    ~RingBase() = default;
    static constexpr std::size_t block_slots = 1024;
    std::size_t place(std::size_t i) const {
        if (i >= size_) index_failed();
        return head_ + i;
    }
    void*& block_of(std::size_t i) const { return blocks_[i / block_slots & block_mask_]; }
    // To size(); the item is what its slot held last. RETURNS its block.
    void* add(const Kind& kind);
    void destroy(const Kind& kind);
    void swap(RingBase& other);

    void** blocks_ = nullptr;     // null where there is none yet
    std::size_t slot_mask_ = 0;   // slots of a block, less one
    std::size_t block_mask_ = 0;  // blocks, less one
    std::size_t capacity_ = 0;    // slots of all blocks
    std::size_t head_ = 0;        // goes on for ever: the masks say where it is
    std::size_t size_ = 0;

private:
    void grow(const Kind& kind);
    void widen(const Kind& kind);
};

// A queue. Popped slots are kept and used again, so that what they hold (strings above all) keeps
// its memory: in steady state nothing is allocated. A short one is one array, which is replaced as
// it grows; a long one goes on in blocks that never move, so that no push waits for a copy of all.
template <class T>
class Ring : public RingBase {
public:
    Ring() = default;
    ~Ring() { destroy(kind); }
    Ring(Ring&& other) noexcept { swap(other); }
    Ring& operator=(Ring&& other) noexcept { return swap(other), *this; }

    T& operator[](std::size_t i) { return slot(place(i)); }
    const T& operator[](std::size_t i) const { return slot(place(i)); }
    T& front() { return (*this)[0]; }
    T& back() { return (*this)[size_ - 1]; }
    const T& front() const { return (*this)[0]; }
    const T& back() const { return (*this)[size_ - 1]; }
    // RETURNS a slot with whatever it held last: the caller sets every field.
    T& push() {
        T* const block = static_cast<T*>(add(kind));
        return block[(head_ + size_ - 1) & slot_mask_];
    }
    // Those behind it move up, or those before it if they are fewer. What it held is given back.
    void erase(std::size_t i) {
        if (i < size_ / 2) {
            for (; i > 0; i--) (*this)[i] = std::move((*this)[i - 1]);
            front() = T();
            return pop();
        }
        for (; i + 1 < size_; i++) (*this)[i] = std::move((*this)[i + 1]);
        back() = T();
        pop_back();
    }

private:
    static void* make(std::size_t count) { return new T[count](); }
    static void drop(void* items) { delete[] static_cast<T*>(items); }
    static void move(void* to, std::size_t to_place, void* from, std::size_t from_place) {
        static_cast<T*>(to)[to_place] = std::move(static_cast<T*>(from)[from_place]);
    }
    static constexpr Kind kind{&make, &drop, &move};
    T& slot(std::size_t i) const { return static_cast<T*>(block_of(i))[i & slot_mask_]; }
};


// What is to come, the earliest first; of one time, in the order in which it was added. A heap.
template <class T>
class Agenda {
public:
    bool empty() const { return items_.empty(); }
    const T& front() const { return items_[0]; }
    void add(T&& item) {
        item.order = order_++;
        std::size_t i = items_.size();
        items_.push();
        for (; i > 0 && is_before(item, items_[(i - 1) / 2]); i = (i - 1) / 2) {
            items_[i] = std::move(items_[(i - 1) / 2]);
        }
        items_[i] = std::move(item);
    }
    T take() {
        T taken = std::move(items_[0]);
        T last = std::move(items_.back());
        items_.pop_back();
        std::size_t i = 0, child = 1;
        for (; child < items_.size(); i = child, child = 2 * i + 1) {
            const bool right = child + 1 < items_.size();
            if (right && is_before(items_[child + 1], items_[child])) child += 1;
            if (!is_before(items_[child], last)) break;
            items_[i] = std::move(items_[child]);
        }
        if (!items_.empty()) items_[i] = std::move(last);
        return taken;
    }

private:
    static bool is_before(const T& a, const T& b) {
        return a.at < b.at || (a.at == b.at && a.order < b.order);
    }
    Ring<T> items_;
    std::uint64_t order_ = 0;
};

using Numbers = std::map<std::uint64_t, std::uint64_t>;
std::uint64_t& number_at(Numbers& numbers, std::uint64_t key);  // 0 where there was none

// A map from a number, or an id, to a T that never moves, in order. Under all of them is the same
// tree, of addresses as numbers: a compiler's time goes by the types that it has to make.
template <class Key, class T>
class Numbered {
public:
    template <class Value>
    struct Item {
        Key first;
        Value& second;
        const Item* operator->() const { return this; }
    };
    template <class Value, class Place>
    class Iterator {
    public:
        explicit Iterator(Place place) : place_(place) {}
        Item<Value> operator*() const { return {Key{place_->first}, at(place_->second)}; }
        Item<Value> operator->() const { return **this; }
        Iterator& operator++() { return ++place_, *this; }
        bool operator==(const Iterator& other) const { return place_ == other.place_; }
        bool operator!=(const Iterator& other) const { return place_ != other.place_; }

    private:
        friend class Numbered;
        Place place_;
    };
    using iterator = Iterator<T, Numbers::iterator>;
    using const_iterator = Iterator<const T, Numbers::const_iterator>;

    Numbered() = default;
    ~Numbered() { clear(); }
    Numbered(const Numbered&) = delete;
    Numbered& operator=(const Numbered&) = delete;

    bool empty() const { return numbers_.empty(); }
    std::size_t size() const { return numbers_.size(); }
    iterator begin() { return iterator(numbers_.begin()); }
    iterator end() { return iterator(numbers_.end()); }
    const_iterator begin() const { return const_iterator(numbers_.begin()); }
    const_iterator end() const { return const_iterator(numbers_.end()); }
    iterator find(Key key) { return iterator(numbers_.find(number(key))); }
    const_iterator find(Key key) const { return const_iterator(numbers_.find(number(key))); }
    iterator upper_bound(Key key) { return iterator(numbers_.upper_bound(number(key))); }
    T& at_or_new(Key key) {
        std::uint64_t& address = number_at(numbers_, number(key));
        if (address == 0) address = reinterpret_cast<std::uintptr_t>(new T());
        return at(address);
    }
    // The item is destroyed when it cannot be found any more: its destructor may look here.
    iterator erase(iterator item) {
        const Owned<T> erased(&at(item.place_->second));
        return iterator(numbers_.erase(item.place_));
    }
    void erase(Key key) {
        const iterator found = find(key);
        if (found != end()) erase(found);
    }
    // The item goes over to another map; where it is in memory it stays.
    void hand_over(iterator item, Numbered& to) {
        number_at(to.numbers_, item.place_->first) = item.place_->second;
        numbers_.erase(item.place_);
    }
    void clear() {
        const Numbers cleared = std::move(numbers_);
        numbers_.clear();
        for (const auto& item : cleared) delete &at(item.second);
    }

private:
    static T& at(std::uint64_t address) {
        return *reinterpret_cast<T*>(static_cast<std::uintptr_t>(address));
    }
    static std::uint64_t number(Key key) {
        if constexpr (std::is_integral_v<Key>) {
            return key;
        } else {
            return key.value;
        }
    }
    Numbers numbers_;
};

}  // namespace detail

// =================================================================================================
// Part One, chapter 2: Codec
// =================================================================================================
// Purpose    Values to bytes and back; checksums and hashes.
// Invariants A reader never reads past its bytes and never allocates: the first field that does not
//            fit makes it bad for ever, and every later field reads as zero.
// May touch  Bytes.
// Format     Big-endian, fixed width; a string is a 32-bit length and its bytes.

class Writer {
public:
    explicit Writer(Bytes& out) : out_(out) {}  // appends to out, which must outlive it
    void u8(std::uint8_t value) { out_.push_back(static_cast<char>(value)); }
    void u32(std::uint32_t value);
    void u64(std::uint64_t value);
    void i32(std::int32_t value) { u32(static_cast<std::uint32_t>(value)); }
    void i64(std::int64_t value) { u64(static_cast<std::uint64_t>(value)); }
    void zxid(Zxid value) { u64(value.value); }
    void bytes(BytesView value);                         // with its length
    void raw(BytesView value) { out_.append(value); }    // without
    std::size_t size() const { return out_.size(); }
    void patch_u32(std::size_t offset, std::uint32_t value);  // overwrites four bytes written

private:
    Bytes& out_;
};

class Reader {
public:
    explicit Reader(BytesView bytes) : rest_(bytes) {}  // the views it gives are into bytes
    bool ok() const { return ok_; }
    bool done() const { return ok_ && rest_.empty(); }  // everything read, nothing left
    std::size_t left() const { return rest_.size(); }
    std::uint8_t u8();
    std::uint32_t u32();
    std::uint64_t u64();
    std::int32_t i32() { return static_cast<std::int32_t>(u32()); }
    std::int64_t i64() { return static_cast<std::int64_t>(u64()); }
    Zxid zxid() { return Zxid{u64()}; }
    BytesView bytes(std::size_t size_max);  // a longer one makes the reader bad
    BytesView raw(std::size_t size);

private:
    BytesView rest_;
    bool ok_ = true;
};

std::uint32_t crc32c(BytesView bytes, std::uint32_t seed = 0);  // Castagnoli, as iSCSI and ext4
std::uint64_t hash64(BytesView bytes, std::uint64_t seed);      // the same on every machine
std::uint64_t mix64(std::uint64_t a, std::uint64_t b);          // two words to one, well stirred
// SipHash-2-4 of 128 bits (Aumasson and Bernstein, 2012): who does not know the key cannot make it.
// As two numbers whose little-endian bytes, one after the other, are the ones of the reference.
struct SipHash {
    std::uint64_t low = 0;
    std::uint64_t high = 0;
    friend bool operator==(SipHash a, SipHash b) {  // in the same time wherever they differ
        return ((a.low ^ b.low) | (a.high ^ b.high)) == 0;
    }
    friend bool operator!=(SipHash a, SipHash b) { return !(a == b); }
};
SipHash siphash(BytesView bytes, const SipHash& key);
// Appends a string of JSON, quoted, in ASCII alone: any other byte as the character of its number.
void append_json_text(BytesView text, Bytes& out);

// =================================================================================================
// Part One, chapter 3: Tree
// =================================================================================================
// Purpose    The nodes: found by path, listed in order, each with its Stat; and a digest of all.
// Invariants T1 Every node but the root has a parent that is in the tree.
//            T2 The digest is a function of the nodes alone, not of the way they came about.
//            T3 A parent's creation count never falls and numbers its sequential children.
//            T4 An ephemeral node has no children.
//            T5 What a save gives is the tree as it was when the save began.
//            T6 What is undone leaves no trace: not in a Stat, nor in the next sequence number.
//            T7 What a node's life hangs on never changes. The nodes that go by themselves, and no
//            others, are listed, each with its ttl: what looks for those that are due costs as much
//            as there are of them.
//            T8 A list has the children after a name, in order, without a gap before its end.
//            T9 An ACL is its node's alone. Those that are alike, with their aversions, are kept
//            once, as long as a node has them; one that is open to all and was never set is not
//            kept, and nothing is looked up for it.
//            T10 The ephemeral nodes of each session are listed in the order of their paths, those
//            and no others: by links in the nodes themselves, where others have their children.
//            T11 It knows how many bytes its paths and data have.
// May touch  Memory; deterministic.
// Reading    ZooKeeper's DataTree and PathUtils. What it may cost: one hash of the path and four
//            cache lines a look-up, 120 bytes a node beside its path and data.

enum class CreateMode : std::int32_t {
    persistent = 0,
    ephemeral = 1,
    persistent_sequential = 2,
    ephemeral_sequential = 3,
    container = 4,            // goes when it has had children, and has none any more
    persistent_with_ttl = 5,  // goes when it has no children, and was last set longer ago than that
    persistent_sequential_with_ttl = 6,
};

constexpr bool is_ephemeral(CreateMode mode) {
    return mode == CreateMode::ephemeral || mode == CreateMode::ephemeral_sequential;
}
constexpr bool is_sequential(CreateMode mode) {
    return mode == CreateMode::persistent_sequential || mode == CreateMode::ephemeral_sequential ||
           mode == CreateMode::persistent_sequential_with_ttl;
}
constexpr bool has_ttl(CreateMode mode) {
    return mode == CreateMode::persistent_with_ttl ||
           mode == CreateMode::persistent_sequential_with_ttl;
}
constexpr std::int64_t ttl_ms_max = (std::int64_t{1} << 40) - 1;

// What a node's life hangs on. ZooKeeper keeps it in the owner of the Stat, and has had to tell
// such owners from sessions ever since; here that is 0 for all but the ephemeral ones.
enum class NodeKind : std::uint8_t { persistent = 0, ephemeral = 1, container = 2, ttl = 3 };
struct NodeLife {
    NodeKind kind = NodeKind::persistent;
    SessionId owner;           // of an ephemeral node, else 0
    std::int64_t ttl_ms = 0;   // of one with a ttl: 1 .. ttl_ms_max, else 0

    NodeLife() = default;
    NodeLife(SessionId session)  // persistent where that is 0
        : kind(session == SessionId{} ? NodeKind::persistent : NodeKind::ephemeral),
          owner(session) {}
    NodeLife(CreateMode mode, SessionId session, std::int64_t ttl);
};

// ZooKeeper's eleven fields. Times are Unix milliseconds of the leader that numbered the change.
struct Stat {
    Zxid czxid;                   // created by
    Zxid mzxid;                   // data last set by
    std::int64_t ctime_ms = 0;
    std::int64_t mtime_ms = 0;
    std::int32_t version = 0;     // sets of the data; -1 is skipped
    std::int64_t cversion = 0;    // creates and deletes of children; ZooKeeper has 32 bits here
    std::int32_t aversion = 0;    // sets of the ACL
    SessionId ephemeral_owner;    // 0 where the node is persistent
    std::int32_t data_length = 0;
    std::int32_t num_children = 0;
    Zxid pzxid;                   // children last changed by
};

constexpr std::int32_t any_version = -1;

// RETURNS true where path is one that ZooKeeper's clients accept: starts with '/', no empty, "."
// or ".." element, no trailing '/', no NUL or control character, well-formed UTF-8, nothing in
// U+D800-U+F8FF or U+FFF0-U+FFFF and nothing outside the basic plane.
bool is_valid_path(BytesView path);
BytesView parent_path(BytesView path);  // "/a/b" -> "/a", "/a" -> "/"; REQUIRES a '/' in path
BytesView node_name(BytesView path);    // "/a/b" -> "b"
// RETURNS the number at the end of a sequential node's name, or nothing. Of ten digits or more.
std::optional<std::int64_t> sequence_of(BytesView name_or_path);

// What an ACL can give. To create and to remove is asked of the parent, the others of the node.
namespace permission {
constexpr std::uint32_t read = 1;    // data, children, the ACL
constexpr std::uint32_t write = 2;   // set
constexpr std::uint32_t create = 4;  // children
constexpr std::uint32_t remove = 8;  // children
constexpr std::uint32_t admin = 16;  // set_acl; get_acl shows digests
constexpr std::uint32_t all = 31;
}  // namespace permission

// Who may do what to a node, and to no other: entries that each give something to an id of a
// scheme. What no entry gives is refused, but to "super".
//
//     world   "anyone"
//     digest  "user:" and the base64 of SHA-1 of "user:password": see digest_id
//     ip      an address, v4 or v6, or address/bits for all that begin with these bits
//     auth    any id: stands for all identities of the session when the write is applied, but ip
//     others  that ReplicaOptions::schemes names: an identity that is the same
class Acl {
public:
    struct Entry {
        std::uint32_t permissions = 0;
        BytesView scheme;
        BytesView id;
    };
    Acl() = default;
    Acl(std::uint32_t permissions, BytesView scheme, BytesView id) { add(permissions, scheme, id); }
    static Acl from(BytesView bytes);  // of another one, or of NodeView::acl
    Acl& add(std::uint32_t permissions, BytesView scheme, BytesView id);
    bool empty() const { return bytes_.empty(); }
    std::size_t size() const;
    Entry operator[](std::size_t i) const;  // REQUIRES i < size(), and takes as long as that
    const Bytes& bytes() const { return bytes_; }
    friend bool operator==(const Acl& a, const Acl& b) { return a.bytes_ == b.bytes_; }
    friend bool operator!=(const Acl& a, const Acl& b) { return a.bytes_ != b.bytes_; }

private:
    Bytes bytes_;  // FORMAT: of each entry u32 permissions, string scheme, string id
};

// As ZooKeeper calls them: OPEN_ACL_UNSAFE, which is what a node has where nothing is said,
// CREATOR_ALL_ACL and READ_ACL_UNSAFE.
Acl open_acl();
Acl creator_acl();
Acl read_only_acl();
// Of "user:password" the id under which the scheme digest knows it.
Bytes digest_id(BytesView credential);

// Identities, as a session has them, are entries without permissions. This one is never refused.
inline constexpr BytesView super_user{"\0\0\0\0\0\0\0\5super\0\0\0\0", 17};

// Whether an ACL gives any of these permissions to one of them. Of bytes as NodeView::acl.
namespace detail {
bool is_permitted(BytesView acl, BytesView identities, std::uint32_t permissions);
}
inline bool permits(BytesView acl, BytesView identities, std::uint32_t permissions) {
    return acl.empty() || detail::is_permitted(acl, identities, permissions);
}

// A look at a node, valid until the tree changes: until the next poll for a replica's tree.
struct NodeView {
    BytesView path;
    BytesView data;  // null_data where it is null
    Stat stat;
    BytesView acl;   // its bytes; none where it is open to all
};

class Tree {
public:
    explicit Tree(std::uint64_t seed = 0);  // the seed spreads hashes; no behaviour depends on it
    ~Tree();
    Tree(const Tree&) = delete;
    Tree& operator=(const Tree&) = delete;

    std::size_t size() const { return size_; }  // nodes, the root and /zookeeper's three included
    std::uint64_t bytes() const { return bytes_; }  // of paths and data (T11)
    std::uint64_t digest() const { return digest_; }
    std::uint64_t work() const { return work_; }  // of all changes ever; a set is 1
    std::optional<NodeView> find(BytesView path) const;
    bool contains(BytesView path) const;

    // Names of path's children in order of their bytes, after the name `after` ("" = from the
    // first), of those that begin with prefix, at most limit, appended to names. RETURNS no_node.
    // The cost is of what is listed, and a logarithm of the children.
    Errc children(BytesView path, BytesView after, std::size_t limit, std::vector<Bytes>& names,
                  BytesView prefix = {}) const;
    // The same with their data: visit is called for each, in order, until it RETURNS false.
    Errc list(BytesView path, BytesView after, BytesView prefix,
              const Callback<bool(const NodeView&)>& visit_node) const;
    // How many nodes there are below path. RETURNS no_node, or too_large where they are more than
    // limit: so many are walked through at most. Below the root it needs no walk, and no limit.
    Result<std::size_t> descendants(BytesView path, std::size_t limit) const;

    // Why a create would fail, or ok and in `created` the final path, the sequence number
    // appended. In this order, ZooKeeper's: bad_arguments (mode, no '/', NUL), no_node (the
    // parent), no_auth, bad_arguments (the final path), node_exists, no_children_for_ephemerals;
    // and too_many, where the parent has had 2^61. `created` keeps its memory. Here and below, who:
    // the identities of whom it is for.
    Errc prepare_create(BytesView path, CreateMode mode, Bytes& created,
                        BytesView who = super_user) const;
    // Creates what prepare_create has just accepted. An ACL is in bytes, none where it is open.
    void create(BytesView path, BytesView data, const NodeLife& life, Zxid zxid,
                std::int64_t time_ms, BytesView acl = {});
    Errc remove(BytesView path, std::int32_t version, Zxid zxid, BytesView who = super_user);
    Errc set(BytesView path, BytesView data, std::int32_t version, Zxid zxid, std::int64_t time_ms,
             Stat* stat = nullptr,  // where the new one goes
             BytesView who = super_user);
    // The data alone of a node that is there: no version, zxid or time of it changes (M14).
    void put_data(BytesView path, BytesView data);
    // REQUIRES of the ACL what create does. In this order: bad_arguments, no_node, no_auth,
    // bad_version (of the aversion), too_many (distinct ones).
    Errc set_acl(BytesView path, BytesView acl, std::int32_t aversion, std::uint32_t acls_max,
                 Stat* stat, BytesView who = super_user);
    // Whether there is room for one more node with that ACL, where so many may be distinct.
    bool can_hold(BytesView acl, std::uint32_t acls_max) const;
    // Whether a node may refuse to be read. And the ACL of the parent of a node that is there.
    bool hides_some() const;
    BytesView parent_acl(BytesView path) const;

    // Removes a container or a node with a ttl that is due at that time, by what the tree is now.
    // RETURNS no_node, where the one of that czxid is not there any more; bad_version, where it
    // does not go by itself, was set since or is not due; or not_empty.
    Errc reap(BytesView path, Zxid czxid, Zxid zxid, std::int64_t time_ms);
    // RETURNS the next one that is due, or nothing. place is 0 at first, moves on, and is 0 again
    // where there are no more; looks are counted down to 0: then it goes on another time.
    std::optional<NodeView> next_due(std::uint64_t& place, std::uint32_t& looks,
                                     std::int64_t time_ms) const;
    std::optional<NodeLife> life(BytesView path) const;

    // For changes that take effect together or not at all: from begin_undo on each node is kept as
    // it was before it changed; end_undo puts them all back (T6), or forgets them.
    void begin_undo();
    void end_undo(bool is_put_back);
    std::size_t undo_bytes() const { return undo_.size(); }
    bool can_undo() const { return can_undo_; }

    // The tree as it is now, as bytes, in slices between which it may change (T5): a node that is
    // about to change or to go is written first as it was. begin_save gives up a save before.
    void begin_save();
    // Appends records of nodes to out, about `bytes` of them beside those written early. RETURNS
    // true where that was the last of it. REQUIRES is_saving(). Of 0 bytes: only those.
    bool save_slice(std::size_t bytes, Bytes& out);
    bool is_saving() const { return save_end_ > 0; }
    void stop_saving();

    // And back, node by node, in any order. Nothing is trusted: false, and corrupt, for whatever a
    // save would not have written; reset is due then, as it is where a load is given up. Nothing
    // may look at the tree before end_load or reset.
    void begin_load();
    bool load_node(BytesView record, const Limits& limits);
    Errc end_load();
    // What a node of that record adds to the digest. RETURNS false as load_node does.
    static bool digest_of_record(BytesView record, const Limits& limits, std::uint64_t& digest);
    // Calls visit for each node, parents before children, children in order; or for the one at a
    // path, if it is there, and all below it. REQUIRES that it changes nothing.
    void visit(const Callback<void(const NodeView&)>& visit_node, BytesView from = "/") const;
    // The ephemeral nodes of a session: how many, and those after a path that begin with prefix, in
    // order of their paths, until visit_node RETURNS false. And how many all sessions have.
    std::size_t owned(SessionId owner) const;
    void list_owned(SessionId owner, BytesView after, BytesView prefix,
                    const Callback<bool(const NodeView&)>& visit_node) const;
    std::size_t owned_by_all() const { return owned_size_; }
    // Frees so many nodes more, before the tree is destroyed. RETURNS true when none is left.
    // Nothing else may be asked of it from then on.
    bool release(std::uint32_t count);
    // Memory of nodes that have gone is put by for others of their size; this gives so many blocks
    // of it back, while there are more than a few. What frees a million at once, or mixes that with
    // other requests, stands still for ten milliseconds and more in common allocators.
    void give_back(std::uint32_t count);
    std::size_t spares() const { return spare_count_; }
    void reset();        // back to a fresh tree: /, /zookeeper, /zookeeper/config, /zookeeper/quota
    void audit() const;  // asserts T1-T4, T7, T9 over the whole tree; cost as that

private:
    struct Node;
    struct Bucket;
    struct Table;
    struct Acls;
    struct Record;
    struct AmongChildren;
    struct AmongOwned;

    Node& at(std::uint32_t node) const;
    Node* seek(BytesView path) const;            // RETURNS nullptr where there is no such node
    std::uint32_t locate(BytesView path) const;  // RETURNS 0 where there is no such node
    std::uint32_t add_node(const Node& fields, BytesView path, BytesView data);
    Node* place_node(std::uint32_t index, const Node& fields, BytesView path, BytesView data);
    Node* slot(std::uint32_t index) const;
    std::uint32_t take_index();
    void grow_slabs();
    Node* make_node(const Node& fields, BytesView path, BytesView data, std::size_t capacity);
    void put_by(Node* node);
    void insert_entry(std::uint64_t hash, Node* node);
    void replace_entry(std::uint64_t hash, const Node* node, Node* moved);
    void erase_entry(std::uint64_t hash, const Node* node);

    std::uint32_t priority(std::uint32_t node) const;
    BytesView child_name(std::uint32_t child, std::size_t offset) const;
    template <class Order>
    void prefetch_below(Node& node, std::size_t offset) const;
    template <class Order>
    void link(std::uint32_t& root, std::uint32_t added, std::size_t offset);
    template <class Order>
    void unlink(std::uint32_t& root, std::uint32_t removed, std::size_t offset);
    void link_child(std::uint32_t parent, std::uint32_t child);
    void unlink_child(std::uint32_t parent, std::uint32_t child);
    void link_owned(std::uint32_t node);
    void unlink_owned(std::uint32_t node);
    using Stack = std::vector<std::uint32_t>;
    void push_left(std::uint32_t node, Stack& stack) const;
    void seek_children(const Node& parent, BytesView after, BytesView prefix, Stack& stack) const;
    std::uint32_t next_child(Stack& stack) const;
    std::uint32_t next_preorder(std::vector<std::uint32_t>& stack) const;

    BytesView acl_of(const Node& node) const;
    std::int32_t aversion_of(const Node& node) const;
    Stat stat_of(const Node& node) const;
    NodeView view_of(const Node& node, std::size_t path_length) const;
    void count_child(std::uint32_t parent, bool created, Zxid zxid);
    static std::uint64_t own_digest(std::uint64_t path_hash, const Node& node, BytesView data,
                                    std::int64_t ttl_ms);
    std::uint64_t own_digest(std::uint64_t path_hash, const Node& node) const;
    static std::uint64_t acl_digest(std::uint64_t path_hash, std::uint64_t list_digest,
                                    std::int32_t aversion);
    std::uint64_t acl_digest(std::uint64_t path_hash, const Node& node) const;
    static std::uint64_t children_digest(std::uint64_t path_hash, const Node& node);
    std::uint64_t digest_of(const Node& node) const;

    void enlist(std::uint32_t node, std::int64_t ttl_ms);
    std::int64_t ttl_ms_of(const Node& node) const;
    static bool is_due(const Node& node, std::uint64_t ttl_ms, std::int64_t time_ms);
    void take_out(std::uint32_t node);
    Node* replace_data(Node* node, BytesView data);
    void put_acl(Node& node, BytesView acl, std::int32_t aversion);
    void keep_node(std::uint32_t node);
    void keep_counts(const Node& node);
    void keep_acl(const Node& node);
    void put_back(BytesView record);
    void put_back_counts(BytesView record);
    void put_back_acl(BytesView record);

    void save_before_change(std::uint32_t node);
    void leave_out(std::uint32_t node);
    bool is_saved(std::uint32_t node) const;
    void save_node(std::uint32_t node, Bytes& out) const;
    static bool read_node(BytesView bytes, const Limits& limits, Record& record);
    bool enter_loaded();
    bool link_loaded();
    bool find_parents(std::vector<std::uint32_t>& parents, std::vector<std::uint32_t>& counts);
    void link_children(std::uint32_t parent, std::uint32_t* children, std::size_t count);
    void put_in_order(std::size_t offset, std::uint32_t* children, std::size_t count) const;
    void prefetch_child(std::uint32_t child) const;
    void add_built_in(std::uint32_t parent, BytesView path);
    void clear();
    void audit_node(std::uint32_t node) const;
    void audit_children(std::uint32_t parent) const;
    std::size_t audit_owned(SessionId owner, std::uint32_t root) const;

    std::vector<detail::Owned<Node*[]>> slabs_;  // nodes by index; all of one size but the first
    detail::Owned<Table[]> tables_;              // nodes by path: for each top byte of a hash
    detail::Ring<std::uint32_t> free_indices_;  // grows by small blocks: no poll copies it
    struct Spare {
        Spare* next;
    };
    static constexpr std::size_t spare_sizes = 64;  // of larger blocks none is put by
    std::array<Spare*, spare_sizes> spares_{};      // by size
    std::size_t spare_count_ = 0;
    std::size_t spare_turn_ = 0;                    // whose size is given back from next
    std::uint32_t indices_used_ = 0;               // ever, index 0 included
    std::uint32_t indices_capacity_ = 0;           // of slabs_
    std::size_t size_ = 0;
    std::uint64_t bytes_ = 0;
    std::uint64_t digest_ = 0;
    std::uint64_t work_ = 0;
    const std::uint64_t seed_;
    detail::Owned<Acls> acls_;          // T9
    detail::Numbers reapable_;          // T7: indices of nodes, to their ttl; of containers to 0
    detail::Numbers owned_;             // T10: sessions, to roots and how many, 32 bits each
    std::size_t owned_size_ = 0;        // of them all
    std::vector<std::uint64_t> saved_;  // a bit for each index: written early, or not part of it
    std::uint32_t save_next_ = 0;       // indices before this one are written
    std::uint32_t save_end_ = 0;        // indices from here on came later; 0: no save is under way
    Bytes saved_early_;                 // records of nodes that have changed since
    bool can_undo_ = false;
    Bytes undo_;                        // nodes, counts and ACLs before they changed; new paths
    std::vector<std::size_t> undo_starts_;  // of each of them in it
    detail::Ring<std::uint64_t> loaded_;  // hashes of the nodes that a load has, but the root's
};

// =================================================================================================
// Part One, chapter 4: Machine
// =================================================================================================
// Purpose    Transactions, applied one after the other in log order by every replica alike; the
//            table of sessions, and what each may do; quotas; the state out as a snapshot and in
//            again.
// Invariants M1 apply is a function of the state and the transaction: nothing from outside.
//            M2 A session's requests are executed in cxid order without gaps, each once.
//            M3 An ephemeral node's owner is an open session, and its list has the node's path.
//            M4 A closed session goes with all its ephemerals in one transaction.
//            M5 The table of voters changes by admit alone, which only a leader numbers, by itself.
//            M6 The parts of a multi take effect together or not at all, and nobody hears of one
//            before all have.
//            M7 A container or a node with a ttl goes by itself by a reap alone, which a leader
//            numbers on its own. Whether it is due is judged when that is applied, by the state and
//            the time of the transaction, by every replica alike.
//            M8 A session has one holder. Who attaches it begins a new count of its requests; what
//            an earlier holder has under way then is never executed, and it has no identity.
//            M9 For how long a session has been silent a leader alone says, and it is never longer
//            than that was true: see Z13.
//            M10 A write under a guard takes effect only where the guard's node is there, with its
//            czxid, as the write is applied.
//            M11 A remove_all takes a node and all below it, children before their parents, or
//            nothing; all those of one transaction together no more than Limits::removals_max.
//            M12 A node that is taken over was that of the session whose password was given, and is
//            another node from then on, of who took it.
//            M13 What a session may do is judged when it is applied, by the identities that are in
//            its record then and by the ACLs of then. A password is in no transaction.
//            M14 A node counts for the deepest quota at or above it, and for no other. What a quota
//            has counted is what is there, after each operation, whatever made a node come, go or
//            change; and its stats node, where there is one, says that.
//            M15 No create and no set takes what a quota has counted over a hard limit of it.
//            M16 /zookeeper/config says who is in the table of voters, as of the transaction that
//            made it so. Nobody sets it.
//            M17 A session that was local is opened under the id that it has, if nobody else has
//            that. See Z14.
// May touch  The tree: it is its only writer.
// Reading    ZooKeeper's PrepRequestProcessor and DataTree.processTxn. Unlike there, a request is
//            judged when it is applied, so there is no table of outstanding changes.

enum class OpCode : std::uint8_t {
    open_session = 1,   // u64 nonce, u32 timeout in ms, u64 and u64: the password; and u8 1 of
                        // one that was local: the nonce is its id
    close_session = 2,  // u8 1 = expired
    create = 3,         // string path, string data *, i32 mode; with a ttl i64 ms. With 2^16 in
                        // the mode it has an ACL: string, before the ttl
    remove = 4,         // string path, i32 version
    set = 5,            // string path, string data *, i32 version. * null: u32 2^32 - 1 alone
    admit = 6,          // u32 count; each u32 voter, u64 storage: see VoterTable
    multi = 7,          // u32 parts; each u8 of create, remove, set, check, or one from 16 on; and
                        // the string of its body
    check = 8,          // string path, i32 version: a part of a multi only
    reap = 9,           // string path, u64 czxid: of a node that is due
    attach_session = 10,  // u64 nonce of the holder that is to be; its cxid begins the count
    silence = 11,       // of sessions not heard of: each u64 id, u32 ms; of 0 ms: heard of again
    set_acl = 12,       // string path, string ACL, i32 aversion
    auth = 13,          // the identities that the session has from here on, as an ACL's bytes
    // Parts of a multi only, as check is:
    check_that = 16,    // string path, u8 Condition; by that nothing, u64, or string data *
    guard = 17,         // string path, u64 czxid
    create_or_set = 18,  // as create, of no sequential mode
    create_with_parents = 19,  // u8 mode of those that are missing; and as create
    take_over = 20,     // u64 session, u64 and u64: its password; and as create, mode ephemeral
    remove_all = 21,    // as remove
};

// What a check_that asks of a node.
enum class Condition : std::uint8_t { absent = 1, czxid = 2, owner = 3, data = 4, children = 5 };

// Whoever knows it may attach the session, at any replica, while it lives.
struct SessionPassword {
    std::uint64_t high = 0;
    std::uint64_t low = 0;
};
// In the same time wherever they differ.
bool is_same(const SessionPassword& a, const SessionPassword& b);

// A cxid is the count of the session's holders before this one, and below that the number of the
// holder's request, from 1. RETURNS where the next holder begins, or 0: there have been too many.
constexpr unsigned cxid_bits = 48;
std::uint64_t next_holding(std::uint64_t cxid);

// One transaction: an entry of the log. The views are into the entry's bytes.
struct Txn {
    Zxid zxid;
    Zxid previous;                 // the zxid of the entry before it in the history
    std::uint32_t previous_crc = 0;  // and that entry's checksum: the chain
    std::int64_t time_ms = 0;      // the leader's Unix time when it numbered the request
    SessionId session;             // 0 for open_session
    std::uint64_t cxid = 0;        // the session's number for the request: see next_holding; to
                                   // open one that was local, what its replica has applied: Z14
    std::uint64_t confirmed = 0;   // outcomes up to this cxid have reached the caller
    OpCode op = OpCode::open_session;
    BytesView body;                // as the table at OpCode
};

// What became of a part of a multi: of one that was undone or never tried the error alone.
struct Part {
    Errc error = Errc::ok;   // ok before the part that failed, runtime_inconsistency after it
    Bytes path;              // whatever may create: the final path
    Stat stat;               // of these, and set; of conditions: as the part found it
};

// What became of a request. Kept with the session until the caller has it.
struct Outcome {
    std::uint64_t cxid = 0;
    Zxid zxid;
    OpCode op = OpCode::open_session;
    Errc error = Errc::ok;
    Bytes path;              // create: the final path
    Stat stat;               // create and set
    SessionId session;       // open_session: the session
    std::vector<Part> parts;  // multi; its error is that of the part that failed
};

struct SessionRecord {
    SessionId id;
    std::uint64_t nonce = 0;        // the opener's: a repeated open finds this session again
    std::uint32_t timeout_ms = 0;
    SessionPassword password;
    std::uint32_t silent_ms = 0;    // of its timeout, as the last leader that saw to it knew
    std::uint64_t holder = 0;       // the nonce of who attached it last; 0: its opener has it
    std::uint64_t cxid = 0;         // newest executed, or where its holder begins
    std::uint64_t confirmed = 0;
    detail::Ring<Outcome> outcomes;  // of confirmed+1 .. cxid, in order
    Bytes identities;              // M10: as an ACL's bytes, each once
    std::uint64_t identities_hash = 0;  // of them; 0 where there are none
    std::uint64_t saved_in = 0;     // the number of the save that has it already
    std::uint64_t digest = 0;       // of it, and of what of it no write changes: a Machine's alone
    std::uint64_t lasting_digest = 0;

    // RETURNS the outcome of a request that was executed and is not confirmed, or null.
    const Outcome* outcome_of(std::uint64_t request_cxid) const;
};

// Which storage counts for each voter: what was promised and acknowledged belongs to a storage, not
// to a name. An admit changes it:
//
//   a voter that is not in it   founds: its storage counts from here on
//   a voter that is in it       the storage takes the place of the one that counted; 0 = none
//   nobody                      the founding is complete: a majority is enough from here on
class VoterTable {
public:
    struct Place {
        PeerId voter;
        std::uint64_t storage = 0;
        bool is_founding = false;  // put there by a founding that is not complete
    };
    using Places = std::vector<Place>;
    bool knows(PeerId voter) const { return find(voter) != nullptr; }
    std::uint64_t storage_of(PeerId voter) const;  // 0: none
    bool is_founding() const;
    const Places& places() const { return places_; }  // in the order of their ids
    bool apply(BytesView body);  // of an admit; RETURNS false, and changes nothing, if it is none
    static void write(const Places& changes, Bytes& body);
    std::uint64_t digest() const;
    void save(Bytes& out) const;
    static bool read(BytesView record, Place& place);
    bool load(BytesView record);
    static std::uint64_t digest_of(const Place& place);
    void clear();

private:
    const Place* find(PeerId voter) const;  // null: not in it
    Place& find_or_add(PeerId voter);
    Places places_;
};

enum class EventType : std::int32_t {
    none = -1,
    created = 1,
    deleted = 2,
    data_changed = 3,
    children_changed = 4,
    data_watch_removed = 5,        // the watcher is: by remove_watches
    child_watch_removed = 6,
    persistent_watch_removed = 7,  // of both modes
};

// Hears of each change as it is applied, in order: a node's own before its parent's children. With
// each comes the bytes of that node's ACL as the change found it, or made it: who may not read it
// is not to hear. None where it is open, or where no node of the tree refuses to be read.
class ChangeSink {
public:
    virtual void on_created(BytesView path, Zxid zxid, BytesView acl) = 0;
    virtual void on_deleted(BytesView path, Zxid zxid, BytesView acl) = 0;
    virtual void on_data_changed(BytesView path, Zxid zxid, BytesView acl) = 0;
    virtual void on_children_changed(BytesView path, Zxid zxid, BytesView acl) = 0;

protected:
    ~ChangeSink() = default;
};

// Hears of each change of a node, in order, with what the node is after it, or was before it went;
// between hold and release of those of a multi, which release says to keep or to forget (M6).
class ChangeRecorder {
public:
    virtual void on_change(EventType type, const NodeView& node, Zxid zxid) = 0;
    virtual void hold() = 0;
    virtual void release(bool is_kept) = 0;

protected:
    ~ChangeRecorder() = default;
};

// Takes a state apart into its records, in whatever pieces its bytes come. Trusts nothing.
class StateReader {
public:
    explicit StateReader(const Limits& limits);
    void restart();  // for another state; keeps its memory
    void feed(BytesView piece);
    // RETURNS false where the next record is not here whole, or never will be. Views last until
    // the next feed.
    bool next(std::uint8_t& kind, BytesView& record);
    void refuse() { sound_ = false; }   // its caller knows better
    bool is_sound() const { return sound_; }
    bool is_whole() const { return sound_ && ended_ && at_ == bytes_.size(); }
    Zxid zxid() const { return zxid_; }
    std::uint64_t digest() const { return digest_; }  // that it claims to have
    std::uint32_t sessions() const { return sessions_; }
    std::uint32_t nodes() const { return nodes_; }

private:
    bool take_frame(std::uint8_t kind, BytesView record);
    Bytes bytes_;
    std::size_t at_ = 0;
    std::size_t record_bytes_max_;
    std::uint32_t crc_ = 0;
    Zxid zxid_;
    std::uint64_t digest_ = 0;
    std::uint32_t sessions_ = 0;
    std::uint32_t nodes_ = 0;
    bool begun_ = false;
    bool ended_ = false;
    bool sound_ = true;
};

// Reads a state through without building it: is it whole, and what its digest says it is?
class StateCheck {
public:
    explicit StateCheck(const Limits& limits);
    void restart();
    void feed(BytesView piece);
    bool is_sound(Zxid zxid) const;

private:
    const Limits limits_;
    StateReader reader_;
    SessionRecord session_;  // the last one; its memory is used again
    std::uint64_t digest_ = 0;
    std::uint32_t sessions_ = 0;
    std::uint32_t nodes_ = 0;
};

// Keeps what it hears until it is known that it holds (M6).
class HeldChanges final : public ChangeSink {
public:
    void on_created(BytesView path, Zxid, BytesView acl) override {
        add(&ChangeSink::on_created, path, acl);
    }
    void on_deleted(BytesView path, Zxid, BytesView acl) override {
        add(&ChangeSink::on_deleted, path, acl);
    }
    void on_data_changed(BytesView path, Zxid, BytesView acl) override {
        add(&ChangeSink::on_data_changed, path, acl);
    }
    void on_children_changed(BytesView path, Zxid, BytesView acl) override {
        add(&ChangeSink::on_children_changed, path, acl);
    }
    std::size_t size() const { return changes_.size(); }
    BytesView path(std::size_t change) const;
    void tell(ChangeSink& changes, Zxid zxid) const;
    void clear();

private:
    using Kind = void (ChangeSink::*)(BytesView path, Zxid zxid, BytesView acl);
    struct Change {
        Kind kind;
        std::size_t end;   // in paths_
        const Bytes* acl;  // in acls_, or null where it is open
    };
    void add(Kind kind, BytesView path, BytesView acl);
    std::vector<Change> changes_;
    Bytes paths_;
    std::map<Bytes, bool, std::less<>> acls_;  // each once: a thousand nodes may share a long one
};

class Machine {
public:
    using Sessions = detail::Numbered<SessionId, SessionRecord>;
    Machine(const Limits& limits, std::uint64_t seed);
    ~Machine();

    const Tree& tree() const { return tree_; }
    Zxid applied() const { return applied_; }
    // Of everything replicated: equal on two replicas that have applied the same zxid.
    std::uint64_t digest() const;
    const Sessions& sessions() const { return sessions_; }  // in the order of their ids
    const SessionRecord* find_session(SessionId id) const;
    const SessionRecord* find_nonce(std::uint64_t nonce) const;
    // What permits says of the identities that a session has; of none, where there is no such one.
    bool may(SessionId id, BytesView acl, std::uint32_t permissions) const;
    const VoterTable& voters() const { return voters_; }

    void record_to(ChangeRecorder* recorder) { recorder_ = recorder; }  // null: nobody; lent
    // Creates and sets of the last transaction that have left a quota over a soft limit.
    std::uint32_t over_quota() const { return over_quota_; }
    // Of all transactions ever, in the tree's measure: its changes, and what quotas have counted.
    std::uint64_t work() const;

    // Applies one transaction; a later one than every one before. RETURNS its outcome, valid until
    // the next call; null where the request was executed before (M2) and this entry is void.
    const Outcome* apply(const Txn& txn, ChangeSink& changes);

    // The state as it is now, as bytes, in slices between which transactions are applied: see
    // Tree::begin_save. save_slice RETURNS true where that was the last of it; REQUIRES bytes > 0.
    void begin_save();
    bool save_slice(std::size_t bytes, Bytes& out);
    bool is_saving() const { return is_saving_; }
    void stop_saving();
    bool release(std::uint32_t nodes) { return tree_.release(nodes); }  // see Tree::release
    void give_back(std::uint32_t nodes) { tree_.give_back(nodes); }     // and Tree::give_back

    // A state from bytes, in pieces or in one; it replaces what was. RETURNS corrupt, and leaves a
    // fresh state, where the bytes are not those of a save.
    void begin_load();
    bool load_piece(BytesView piece);  // RETURNS false where it is damaged: the rest is worthless
    Errc end_load();
    Errc load(BytesView state);
    void audit() const;  // asserts M3 and what the tree's does; cost as the state

private:
    const Outcome* admit(const Txn& txn, ChangeSink& changes);
    void write_config(const Txn& txn, ChangeSink& changes);
    bool is_config_sound() const;
    const Outcome* reap(const Txn& txn, ChangeSink& changes);
    const Outcome* silence(const Txn& txn);
    const Outcome* open_session(const Txn& txn);
    const Outcome* attach_session(const Txn& txn, SessionRecord& session);
    const Outcome* close_session(const Txn& txn, ChangeSink& changes);
    Errc execute(const Txn& txn, SessionRecord& session, Outcome& outcome, ChangeSink& changes);
    Errc multi(const Txn& txn, SessionRecord& session, Outcome& outcome, ChangeSink& changes);
    Errc authenticate(const Txn& txn, SessionRecord& session) const;
    Errc check_version(const Txn& txn, const SessionRecord& session, Outcome& outcome) const;
    Errc create(const Txn& txn, SessionRecord& session, Outcome& outcome, ChangeSink& changes);
    Errc remove(const Txn& txn, const SessionRecord& session, ChangeSink& changes);
    Errc set(const Txn& txn, const SessionRecord& session, Outcome& outcome, ChangeSink& changes);
    Errc set_acl(const Txn& txn, const SessionRecord& session, Outcome& outcome);
    Errc resolve(BytesView acl, const SessionRecord& session);
    void keep_acl(BytesView path);
    void tell_gone(BytesView path, Zxid zxid, ChangeSink& changes);
    Errc execute_part(const Txn& txn, SessionRecord& session, Outcome& outcome);
    Errc check_that(const Txn& txn, const SessionRecord& session, Outcome& outcome) const;
    Errc check_guard(const Txn& txn) const;
    Errc create_or_set(const Txn& txn, SessionRecord& session, Outcome& outcome);
    Errc create_with_parents(const Txn& txn, SessionRecord& session, Outcome& outcome);
    Errc take_over(const Txn& txn, SessionRecord& session, Outcome& outcome);
    Errc remove_all(const Txn& txn, const SessionRecord& session);
    void record_set(BytesView path, BytesView data, const Stat& stat, Zxid zxid) const;
    Stat recorded_stat(BytesView path) const;
    void record_removal(BytesView path, const Stat& stat, Zxid zxid);
    struct Quotas;
    bool has_quotas() const;
    bool is_counted(BytesView path) const;
    bool is_quota(BytesView path) const;
    Errc judge_quotas(BytesView path, BytesView data, std::int64_t bytes, std::int64_t nodes);
    Errc judge_set(const Txn& txn, const SessionRecord& session, std::int64_t& bytes);
    void count_change(BytesView path, std::int64_t bytes, std::int64_t nodes);
    void add_to_quota(BytesView path, std::uint64_t bytes, std::uint64_t nodes);
    void follow_quota_node(BytesView path);
    void begin_quota(BytesView path);
    void end_quota(BytesView path);
    void write_stats(BytesView path);
    void keep_quota(BytesView path);
    void settle_quotas(bool is_put_back);
    void find_quotas(Quotas& found) const;
    bool adopt_quotas();
    void audit_quotas() const;
    friend class StateCheck;
    void save_before_change(SessionRecord& session);
    static void save_session(const SessionRecord& session, Bytes& out);
    static bool read_session(BytesView record, const Limits& limits, SessionRecord& session);
    bool load_session(BytesView record);
    bool owns_all() const;
    void reset();
    // Of what a session is for all its life, and with that of all of it.
    static std::uint64_t digest_lasting(const SessionRecord& session);
    static std::uint64_t digest_of(const SessionRecord& session, std::uint64_t lasting);
    void renew_digest(SessionRecord& session);
    static std::uint64_t digest_of(const SessionRecord& session);

    const Limits limits_;
    Tree tree_;
    Sessions sessions_;
    detail::Numbers nonces_;  // to ids of sessions
    std::uint64_t sessions_digest_ = 0;
    VoterTable voters_;
    std::uint64_t voters_digest_ = 0;
    Zxid applied_;
    Outcome outcome_;    // of a transaction whose session keeps none
    Bytes created_path_;
    Bytes acl_;          // of what is created or set; of what is about to go
    HeldChanges held_;   // of a multi
    std::size_t removals_left_ = 0;  // of a multi, to its remove_alls: M11
    ChangeRecorder* recorder_ = nullptr;
    detail::Owned<Quotas> quotas_;   // M14; null: none since the last load
    std::uint32_t over_quota_ = 0;
    std::size_t count_left_ = 0;     // nodes that quotas that begin in one transaction may count
    std::uint64_t counted_ = 0;      // nodes that were looked at for quotas that begin, ever

    detail::Owned<StateReader> loading_;
    bool is_saving_ = false;
    std::uint64_t save_number_ = 0;
    Zxid save_zxid_;
    SessionId save_next_;              // sessions up to this one are written
    std::uint32_t save_sessions_ = 0;  // when the save began
    std::uint32_t save_nodes_ = 0;
    std::uint32_t save_crc_ = 0;
    Bytes saved_early_;                // records of sessions that have changed since
};

// Whether a request is one that a replica would number: RETURNS ok, marshalling_error,
// unimplemented (an admit and a reap too), bad_arguments or too_large. Judged before anything is
// sent or logged.
Errc judge_request(OpCode op, BytesView body, const Limits& limits);
// Whether it is one that storage_full refuses: it creates or sets something.
bool takes_space(OpCode op, BytesView body);

// =================================================================================================
// Part One, chapter 5: Watches
// =================================================================================================
// Purpose    Which local watcher hears of which change, and in which order; and the changes
//            themselves, kept for a while, for those who read them as a stream. The cost of a
//            change, a removal or a session's end goes by its own watchers, and a logarithm of all.
// Invariants W1 A one-shot watcher is called once at the most, and then forgotten. One that stays
//            is called for each change, until it is removed or its session ends.
//            W2 Events come in the order of the log; for one change, the node's own before its
//            parent's; an event comes before any answer that shows the change.
//            W3 A session hears of no change of a node that it may not read. A one-shot watcher of
//            it is forgotten all the same, as in ZooKeeper.
//            W4 Whoever reads a stream from a position gets each change after it, at and below its
//            path, once and in the order of the log, or snapshot_needed: nothing is left out.
//            W5 A position means the same at every replica: it is a transaction, and how many of
//            its changes, of all paths, are behind.
//            W6 What is kept for streams is bounded whoever reads, and however slowly. A reader
//            costs a change nothing but where it waits for that very change, or may not hear of it.
//            W7 A list of watchers has each row once, in one order, however many pages it comes in.
// May touch  What chapter 4 reports.
// Reading    ZooKeeper's WatchManager. What fires what, at the one-shot watchers of X, at those
//            that stay there, and, but for children_changed, at those above it for all below:
//              create X      created at X                       children_changed at its parent
//              set X         data_changed at X
//              remove X      deleted at X, of both kinds        children_changed at its parent
//            remove_all is a remove of each, children before their parents; take_over of a node
//            that is there a remove and a create.

struct WatchEvent {
    EventType type = EventType::none;
    Bytes path;
    Zxid zxid;  // of the change; of the state in which a watcher was removed
};

using Watcher = Callback<void(const WatchEvent&)>;

enum class WatchKind : std::uint8_t { data = 0, children = 1, persistent = 2, recursive = 3 };

// Who watches what: one session's watchers of a kind at one path.
struct WatchRow {
    SessionId session;
    Bytes path;
    WatchKind kind = WatchKind::data;
    std::size_t watchers = 0;
};

// By session, path, and kind, as ZooKeeper's wchc; or by path, session, and kind, as its wchp.
enum class WatchOrder : std::uint8_t { by_session, by_path };

struct WatchCounts {  // wchs
    std::size_t sessions = 0;  // that have a watcher
    std::size_t paths = 0;     // that are watched
    std::size_t watchers = 0;
};

// What add_watch sets, and remove_watches removes. As ZooKeeper has them.
enum class AddWatchMode : std::int32_t { persistent = 0, persistent_recursive = 1 };
enum class WatcherType : std::int32_t {
    children = 1,
    data = 2,
    any = 3,
    persistent = 4,
    persistent_recursive = 5,
};

// What watch_since sets: the lists of ZooKeeper's setWatches, by what was so at the zxid.
enum class Watched : std::uint8_t {
    data = 0,        // the node was there: get and exists
    absence = 1,     // it was not: exists
    children = 2,    // it was there
    persistent = 3,
};

// Takes the watchers that fire, in order. One that stays is the same each time.
class EventSink {
public:
    // acl: see ChangeSink.
    virtual void on_event(SessionId session, detail::Shared<const Watcher> watcher,
                          EventType type, BytesView path, Zxid zxid, BytesView acl) = 0;

protected:
    ~EventSink() = default;
};

class Watches final : public ChangeSink {
public:
    explicit Watches(EventSink& events);

    // Adds a watcher. The kind `data` serves get and exists, of a present node or not; like
    // `children` it is one-shot. Those of `recursive` hear of all below the path, too.
    void add(WatchKind kind, BytesView path, SessionId session, Watcher watcher);
    // Removes a session's watchers of that path and type, and tells each. RETURNS how many.
    std::size_t remove(WatcherType type, BytesView path, SessionId session, Zxid zxid);
    void remove_session(SessionId session);  // its watchers are forgotten, none is called
    // The state has jumped from one tree to another: fires what the changes between would have,
    // as ZooKeeper's setWatches does, but at those that stay as well. A node deleted and made anew
    // counts as changed. A recursive one costs as much as the trees have nodes below its path.
    void catch_up(const Tree& before, const Tree& after, Zxid zxid);
    // Adds a watcher as of a zxid, to a tree whose zxid is applied. What has changed since it is
    // told at once, and a one-shot one is not even added then.
    void add_since(Zxid zxid, Watched watched, BytesView path, SessionId session, Watcher watcher,
                   const Tree& tree, Zxid applied);
    std::size_t count() const { return watches_.size(); }
    std::size_t count(SessionId session) const;
    WatchCounts counts() const;
    // The first rows after that one, so many at the most (W7). By path it looks at all watchers.
    std::vector<WatchRow> list(WatchOrder order, const WatchRow& after, std::size_t limit) const;

    void on_created(BytesView path, Zxid zxid, BytesView acl) override;
    void on_deleted(BytesView path, Zxid zxid, BytesView acl) override;
    void on_data_changed(BytesView path, Zxid zxid, BytesView acl) override;
    void on_children_changed(BytesView path, Zxid zxid, BytesView acl) override;

private:
    struct Watch {
        WatchKind kind;
        Bytes path;
        SessionId session;
        Watcher watcher;
    };
    struct Place {
        std::uint64_t hash = 0;    // of kind and path
        std::uint64_t number = 0;  // in the order of adding
        bool operator<(const Place& other) const {
            return hash < other.hash || (hash == other.hash && number < other.number);
        }
    };
    using Table = std::map<Place, detail::Shared<Watch>>;
    static Place first_place(WatchKind kind, BytesView path);
    static const Watch* seek(const Table& table, BytesView path, Place& place);
    struct Rows;
    detail::Shared<Watch> take(Place place);
    // What happened, and to which node.
    struct Change {
        EventType type;
        BytesView path;
        Zxid zxid;
        BytesView acl;
    };
    void fire(WatchKind kind, const Change& change);
    void tell(WatchKind kind, BytesView at, const Change& change);
    void tell_staying(const Change& change);
    void tell_above(const Change& change);
    bool is_watched_above(BytesView path) const;
    std::vector<Bytes> recursive_tops() const;
    void catch_up_below(const Tree& before, const Tree& after, Zxid zxid);
    static EventType missed(WatchKind kind, BytesView path, const Tree& before, const Tree& after);
    std::size_t& count_of(WatchKind kind) { return counts_[static_cast<std::size_t>(kind)]; }
    EventSink& events_;
    Table watches_;
    detail::Numbered<SessionId, Table> own_;  // the same, each session's by itself
    std::array<std::size_t, 4> counts_{};     // by kind
    std::uint64_t added_ = 0;                 // ever
};

namespace detail {
class History;
struct Subscriber;
}  // namespace detail

// A place among all changes there ever are, the same at every replica (W5): after so many of those
// of a transaction, and after all before it. A zxid alone is after the whole transaction.
struct ChangePosition {
    static constexpr std::uint32_t whole = UINT32_MAX;
    constexpr ChangePosition(Zxid after = {}, std::uint32_t changes = whole)
        : zxid{after}, index{changes} {}
    Zxid zxid;
    std::uint32_t index;
    friend constexpr bool operator<(const ChangePosition& a, const ChangePosition& b) {
        return a.zxid < b.zxid || (a.zxid == b.zxid && a.index < b.index);
    }
};

struct Change {
    EventType type = EventType::none;  // created, data_changed, deleted; none: see error
    Bytes path;
    Bytes bytes;              // as it was created with, or set to; see SubscribeOptions
    bool is_null = false;     // and not only empty
    Stat stat;                // after it; of a deleted node as it was before
    ChangePosition position;  // what follows it comes from here; its zxid is the change's
    bool is_last = false;     // of its transaction, of what is at or below the path
    Errc error = Errc::ok;    // why no more come; nothing else counts then
};
using OnChange = Callback<void(const Change&)>;

struct SubscribeOptions {
    ChangePosition from;            // the zxid of what was read, or where another one has ended
    bool with_data = true;
    std::size_t changes_a_poll = 256;  // that an OnChange is called with, at the most; at least 1
};

// Reads the changes at a path and below it. It ends with its session, with the replica, when its
// last copy goes, and where it is so slow that what it has not read is kept no more. Then it says
// why, and its position is where another one can go on: at any replica that has kept enough.
class [[nodiscard]] Subscription {
public:
    Subscription() = default;  // api_error
    explicit Subscription(detail::Shared<detail::Subscriber> subscriber);
    // RETURNS the changes that come next: so many at the most, and of many bytes fewer; none where
    // there are none yet; or why there will be none.
    Result<std::vector<Change>> take(std::size_t most = 256) const;
    Errc error() const;
    ChangePosition position() const;  // what has been taken, or was not for this path, is before

private:
    detail::Shared<detail::Subscriber> subscriber_;
};

// =================================================================================================
// Part One, chapter 6: Storage
// =================================================================================================
// Purpose    The contract with what keeps bytes over a crash; one in memory, one in files, and one
//            that puts a thread before another.
// Invariants S1 Records become durable in the order in which they were appended: a crash cuts the
//            tail and nothing else. A snapshot takes its place in that order when it is ended.
//            S2 durable() never falls, and never exceeds what a flush was asked for.
//            S3 A snapshot that was begun and not ended is nothing. One that is durable is whole,
//            and only then may records that it makes needless go.
//            In files, where contents and names are durable apart:
//            S4 A name comes last: a file is synced before it is called a segment or a snapshot,
//            and its directory is before anything relies on it. A segment that becomes a spare is
//            durably a spare before its contents change.
//            S5 That log.F is there says that all before F was durable. The frames of all segments
//            are one chain, and a header of zeros follows the newest: a later write that was torn,
//            or what an earlier life of the file left behind, is told from contents.
//            S6 A snapshot's marker goes into the log once its file and name are durable.
//            S7 What makes something needless is durable before that is removed, and a removal
//            that a crash undid is recognised: what comes back joins nothing that is in use.
//            S8 A tail is cut only above every witness of what was durable: the headers of frames,
//            also of those behind the tail, and the mark. Otherwise it is damage, and then nothing
//            is changed. What open reads it syncs before it counts as durable.
//            S9 After a write, sync or rename that failed no file is touched any more.
//            S10 An id is never used again: a storage that starts over draws another.
//            On a thread:
//            S11 The storage behind is called by one thread at a time: by the other while that is
//            busy, else by the caller. It gets every change that was accepted, in their order.
// May touch  Bytes; FileStorage through Files alone, and only the two implementations of that touch
//            the operating system (COORD_NO_FILES removes them). BackgroundStorage has a thread
//            (COORD_NO_THREADS removes it).
// Format     The files of a storage; NUMBER is of 16 digits, in base 16:
//            lock              held while the storage is open
//            log.NUMBER        a segment: a header, then frames; named by its first sequence
//            spare.NUMBER      will be a segment; its contents mean nothing
//            mark              a header: what was durable, written after each flush, never synced
//            snapshot.NUMBER   a header, then the contents; named by its sequence
//            snapshot.tmp      one that was begun
//            A header (64): u64 magic, u32 version, u64 ensemble, u64 storage's id, u64 sequence,
//            u64 first needed, u64 size, u32 checksum, u8 1 = replaces, u8 0 (3), u32 CRC32C of the
//            60 before. checksum: of the contents; in a segment, of the frame before its first.
//            A frame (36): u32 size of body, u32 CRC32C of body, u64 sequence, u64 durable when it
//            was appended, u32 chain (the last field of the frame before), u8 kind, u8 0 (3), u32
//            CRC32C of the 32 before, from the storage's salt on; the body follows. kind 1: a
//            record; 2: a snapshot's marker (21): u64 first needed, u64 size, u32 CRC32C, u8
//            replaces.

// Where a record or a snapshot stands: 1 for the first, and one more for each.
using Sequence = std::uint64_t;

// Hears at open what the storage holds, in order. Of the snapshots it may get the newest alone.
class RecoverySink {
public:
    virtual void on_record(Sequence sequence, BytesView record) = 0;
    // head: the snapshot's first bytes, 64 or all of its size; read_snapshot gives the others.
    virtual void on_snapshot(Sequence sequence, BytesView head, std::uint64_t size) = 0;

protected:
    ~RecoverySink() = default;
};

// Whom a storage is for. It keeps the ensemble's name and takes no other; a new one draws its id.
struct StorageOwner {
    std::uint64_t ensemble = 0;
    std::uint64_t entropy = 0;
};

// The application's, or one that ships. Called on the thread that polls the replica, from one
// replica only, which must not outlive it. An error is final: the replica stops using it.
class Storage {
public:
    virtual ~Storage() = default;
    // Called once, first. Hands over what is durable, from the first_needed of the newest snapshot
    // on. RETURNS an error, storage_full and storage_locked too, and nothing else is called then;
    // but after corrupt, where something that was durable cannot be read, start_over may be.
    virtual Errc open(RecoverySink& sink, const StorageOwner& owner) = 0;
    // Sets aside all that it holds and goes on as an empty one, under another id that is drawn from
    // entropy; it may not found an ensemble for ever. RETURNS unimplemented or storage_failed.
    virtual Errc start_over(std::uint64_t /*entropy*/) { return Errc::unimplemented; }
    // False for one that has started over: its emptiness does not say that there was nothing.
    virtual bool may_found() const { return true; }
    // Takes a copy. Buffered: durable after a later flush. RETURNS storage_failed; or storage_full,
    // and then nothing has changed.
    virtual Errc append(BytesView record) = 0;
    // A snapshot is written in pieces, aside, while records go on. begin gives up one that was
    // begun and not ended. end gives it the next sequence; when that is durable, older snapshots
    // and records before first_needed may go. replaces: the records before it are not its history,
    // and are worth nothing without it. All RETURN storage_failed; or storage_full, and then it is
    // given up.
    virtual Errc begin_snapshot() = 0;
    virtual Errc write_snapshot(BytesView piece) = 0;
    virtual Errc end_snapshot(Sequence first_needed, bool replaces) = 0;
    // Appends bytes of a snapshot to out, as many as there are of size from offset on. snapshot:
    // the newest one that was ended, or 0 for the one that was begun. RETURNS storage_failed; or
    // throttled_op, which says not now, ask again: never between open and the first change.
    virtual Errc read_snapshot(Sequence snapshot, std::uint64_t offset, std::size_t size,
                               Bytes& out) = 0;
    // Starts to make everything appended durable. May return before it is. RETURNS storage_failed.
    virtual Errc flush() = 0;
    virtual Sequence appended() const = 0;  // the newest record's or snapshot's sequence
    virtual Sequence durable() const = 0;   // everything up to this one survives a crash
    virtual Errc health() const = 0;        // ok, or storage_failed: flush failed behind the scenes
    // False when space runs out: what is left is for what must go on (epochs, closes, deletes).
    virtual bool has_room() const { return true; }
    virtual std::uint64_t id() const = 0;   // random, drawn at its birth, not 0; 0 before open
    // The time that the caller's poll was given, told at its beginning: for what is done at times.
    virtual void set_time(Time /*now*/) {}
};

// Keeps everything in memory: for tests, for simulation, and for ensembles that may forget when
// all of them stop. A replica destroyed and made again on the same MemoryStorage has restarted.
// The memory of old snapshots is used for the next one: it holds about two of them.
class MemoryStorage final : public Storage {
public:
    Errc open(RecoverySink& sink, const StorageOwner& owner) override;
    Errc append(BytesView record) override;
    Errc begin_snapshot() override;
    Errc write_snapshot(BytesView piece) override;
    Errc end_snapshot(Sequence first_needed, bool replaces) override;
    Errc read_snapshot(Sequence snapshot, std::uint64_t offset, std::size_t size,
                       Bytes& out) override;
    Errc flush() override;
    Sequence appended() const override { return appended_; }
    Sequence durable() const override { return durable_; }
    Errc health() const override { return failed_ ? Errc::storage_failed : Errc::ok; }
    bool has_room() const override { return !full_; }
    std::uint64_t id() const override { return id_; }
    Errc start_over(std::uint64_t entropy) override;
    bool may_found() const override { return may_found_; }

    // For tests. While held, a flush is remembered and durable() stands still; release makes
    // durable what was flushed up to `sequence` (all of it by default).
    void hold_flushes() { held_ = true; }
    void release(Sequence sequence = UINT64_MAX);
    void stop_holding() { held_ = false, release(); }
    Sequence flushed() const { return flushed_; }
    // A crash: what is not durable is gone, but for the first `survivors` of it.
    void crash(std::size_t survivors = 0);
    void fail() { failed_ = true; }  // every later append and flush is storage_failed
    void set_full(bool full) { full_ = full; }
    // An older image of it comes back: what is newer, durable or not, is gone. REQUIRES that no
    // snapshot is among it.
    void roll_back(Sequence sequence);
    std::size_t bytes() const { return bytes_; }  // of what it holds, spare memory not counted

private:
    static constexpr std::size_t piece_bytes = 64 * 1024;
    struct Pieces {                 // a snapshot's bytes, all but the last of piece_bytes
        std::vector<Bytes> pieces;
        std::uint64_t size = 0;
    };
    struct Item {
        bool is_snapshot = false;
        Bytes bytes;                // of a record
        Pieces snapshot;
        Sequence first_needed = 0;
    };
    Item& push(bool is_snapshot);
    void discard(std::size_t items_max);
    void give_up(Pieces& pieces);
    Item& item(Sequence sequence) { return items_[static_cast<std::size_t>(sequence - first_)]; }
    detail::Ring<Item> items_;      // first_ .. appended_
    Pieces begun_;
    bool is_begun_ = false;
    std::vector<Bytes> spare_;      // memory of pieces that are gone
    std::vector<Bytes> spare_list_;  // and of a list of them
    Sequence first_ = 1;
    Sequence appended_ = 0;
    Sequence flushed_ = 0;
    Sequence durable_ = 0;
    Sequence snapshot_ = 0;         // the newest durable one
    Sequence needed_ = 1;           // what is before it goes, a few records at a time
    std::size_t bytes_ = 0;
    std::uint64_t id_ = 0;
    bool may_found_ = true;
    bool held_ = false;
    bool failed_ = false;
    bool full_ = false;
};

#ifndef COORD_NO_FILES

namespace detail {
struct FrameCursor;
}  // namespace detail

using FileId = Id<struct FileTag, std::uint32_t>;  // an open file; 0 is none

// What FileStorage asks of an operating system. Those of POSIX and Windows ship; a test puts a disk
// with faults in their place. What a file contains and how it is called are durable apart: a
// creation, renaming or removal survives a crash for certain once its directory was synced.
// Errors: storage_full (no space, no quota), storage_locked (lock), no_node (open of what is not
// there), storage_failed (anything else).
class Files {
public:
    enum class Mode : std::uint8_t { read, write, create };  // write: both; create: both, and empty
    virtual ~Files() = default;
    virtual Result<FileId> open(BytesView path, Mode mode) = 0;
    virtual void close(FileId file) = 0;
    virtual Result<std::uint64_t> size(FileId file) = 0;
    // Appends what there is of size bytes from offset on: fewer at the end of the file alone.
    virtual Errc read(FileId file, std::uint64_t offset, std::size_t size, Bytes& out) = 0;
    virtual Errc write(FileId file, std::uint64_t offset, BytesView bytes) = 0;  // all of them
    virtual Errc allocate(FileId file, std::uint64_t size) = 0;  // room for an empty file's zeros
    virtual Errc sync(FileId file) = 0;  // contents and size; an error where the system cannot
    virtual Errc rename(BytesView from, BytesView to) = 0;       // replaces what is there
    virtual Errc remove(BytesView path) = 0;                     // not there: ok
    virtual Errc make_directory(BytesView path) = 0;             // there already: ok
    virtual Errc sync_directory(BytesView path) = 0;  // ok where there is no such thing
    virtual Errc list(BytesView directory, std::vector<Bytes>& names) = 0;  // appends them
    // Until it is closed, or the process ends in whatever way, no other call here or in another
    // process can lock that path. Creates the file. RETURNS storage_locked.
    virtual Result<FileId> lock(BytesView path) = 0;
    virtual const char* error_text() const = 0;  // of the last error; lives until the next call
};

detail::Owned<Files> system_files();

struct FileStorageOptions {
    Bytes directory;                   // made if it is not there; its parent must be
    Bytes snapshot_directory;          // "" = the same; a disk of its own keeps the log's quick
    std::uint64_t segment_bytes = 16 * 1024 * 1024;  // of a file of the log
    std::uint32_t snapshots_kept = 3;  // the newest ones, and the log since the oldest; >= 1
    // What is needless goes at most once in that time, by the time of polls, a few files in each
    // flush; where there is no space it does not wait. 0 = at once, where ZooKeeper's means never.
    Duration purge_interval;
    bool sync = true;                  // false: durable() LIES, a power cut loses or damages; for
                                       // file systems that cannot sync: there open fails otherwise
    Files* files = nullptr;            // null = system_files(); must outlive the storage
};

// What the last open found.
struct RecoveryReport {
    bool is_new = false;               // there was nothing: a storage was born
    std::uint32_t segments = 0;
    Sequence first = 0;                // handed over: first to last; 0 = nothing
    Sequence last = 0;
    Sequence certain = 0;              // up to here the storage can tell that it was durable
    Sequence snapshot = 0;             // the one in use; 0 = none
    std::uint32_t snapshots_sound = 0;
    std::uint32_t snapshots_bad = 0;   // there, but damaged: passed over
    std::uint64_t torn_bytes = 0;      // cut off the end: a write that was never acknowledged
    std::uint32_t leftovers = 0;       // files removed: half-made ones, and those that came back
    Sequence damaged_at = 0;           // the first that was durable and cannot be read; 0 = none
    Bytes damage;                      // what is wrong, and in which file; "" = nothing
    Bytes text() const;                // all of it, in a line
};

// Keeps everything in files: segments of the log, allocated in advance and used again, and the
// newest few snapshots. A flush is one write and one fdatasync. Opened again, it has restarted.
// A storage that is full takes no snapshots and says has_room() = false; the segment in use is
// what is left for the rest. flush, also with nothing to write, finds out that there is room again.
// The limit of S8: what was durable and has rotted is damage where something later speaks for it,
// a frame behind it or the mark. If the power goes before either has reached the disk, a last
// record that rots then looks like one that was torn, and is cut off; if it was acknowledged, it
// is lost unless a voter that has it is among the majority that starts first. A rule without that
// limit would have voters that all lost their power wait for every one of them; torn tails are
// common then, and rot of a record that was written in the last moments is not.
class FileStorage final : public Storage {
public:
    explicit FileStorage(FileStorageOptions options);
    explicit FileStorage(BytesView directory);
    ~FileStorage() override;           // what was not flushed is lost
    FileStorage(const FileStorage&) = delete;
    FileStorage& operator=(const FileStorage&) = delete;

    // RETURNS corrupt where something durable cannot be read, or the files are not the owner's.
    // The sink has then heard what comes before the damage, and no file was touched.
    Errc open(RecoverySink& sink, const StorageOwner& owner) override;
    Errc append(BytesView record) override;
    Errc begin_snapshot() override;
    Errc write_snapshot(BytesView piece) override;
    Errc end_snapshot(Sequence first_needed, bool replaces) override;
    Errc read_snapshot(Sequence snapshot, std::uint64_t offset, std::size_t size,
                       Bytes& out) override;
    Errc flush() override;
    Sequence appended() const override { return appended_; }
    Sequence durable() const override { return durable_; }
    Errc health() const override { return failed_ == Errc::ok ? failed_ : Errc::storage_failed; }
    bool has_room() const override { return !full_; }
    std::uint64_t id() const override { return id_; }
    void set_time(Time now) override { time_ = now; }
    // Every file gets another name, aside.ID.NAME with the new id, and stays there for whoever can
    // still read it. RETURNS corrupt where the files are not the owner's: they are not touched.
    Errc start_over(std::uint64_t entropy) override;
    bool may_found() const override { return may_found_; }

    const RecoveryReport& report() const { return report_; }
    const Bytes& reason() const { return reason_; }  // why it failed, and at which file; "" = not

private:
    struct Recovery;
    struct Segment {
        Sequence first = 0;
        Sequence last = 0;             // first - 1 where it is empty; set by open alone
        std::uint64_t size = 0;
        std::uint32_t chain = 0;       // the checksum of its last header
        bool is_sound = false;         // its header is
        bool follows = false;          // the segment before it, without a gap
    };
    struct Snapshot {
        Sequence sequence = 0;
        Sequence first_needed = 0;
        std::uint64_t size = 0;
        std::uint32_t crc = 0;
        bool replaces = false;
        bool is_sound = false;
        Sequence segment = 0;          // the first of the one that its marker is in
    };
    bool passed(Errc error, BytesView what);
    bool refuse(BytesView name, BytesView why);
    Bytes path_of(const char* kind, std::uint64_t number) const;
    Bytes path_of(const char* name) const;
    const Bytes& path_in(Bytes& place, const char* name) const;
    const Bytes& path_in(Bytes& place, const char* kind, std::uint64_t number) const;
    bool open_file(const Bytes& path, Files::Mode mode, FileId& file);
    void close(FileId& file);
    void close_all();
    bool sync(FileId file, BytesView what);
    bool sync_names();
    bool remove(const Bytes& path);
    bool list_files(Recovery& found);
    bool is_ours(std::uint32_t version, std::uint64_t ensemble, std::uint64_t id, BytesView name);
    bool read_mark(Recovery& found);
    bool read_log(Recovery& found);
    bool read_whole(const Bytes& path, Bytes& out);
    bool read_segment(std::size_t index, Recovery& found);
    void judge_tail(const detail::FrameCursor& end, Recovery& found);
    bool read_snapshots(Recovery& found);
    bool read_through(Snapshot& snapshot, Recovery& found);
    bool choose(std::size_t begin, Sequence limit, Recovery& found);
    void choose_any(Recovery& found);
    const Snapshot* find_snapshot(Sequence sequence, Sequence segment = 0) const;
    bool hand_over(Recovery& found, RecoverySink& sink);
    bool hand_over_segment(const Segment& segment, Recovery& found, RecoverySink& sink);
    bool give_birth(const StorageOwner& owner);
    bool set_aside(const Bytes& directory, std::uint64_t id);
    bool take_over(Recovery& found);
    bool cut_tail(const Bytes& path);
    bool remove_leftovers(const Recovery& found);
    bool open_mark(bool exists);
    Errc make_room(std::size_t body_size);
    void append_frame(std::uint8_t kind, BytesView body);
    bool write_out();
    char* room_in_buffer(std::size_t size);
    Errc start_segment(std::uint64_t size);
    Errc make_spare(std::uint64_t size);
    bool tend_reserve();
    bool write_mark();
    bool is_purge_due() const;
    bool retire();
    bool retire_segments(Sequence needed, std::size_t files_max);
    Errc write_piece();
    Errc give_up_snapshot(Errc error);

    FileStorageOptions options_;
    detail::Owned<Files> own_files_;
    Files* files_ = nullptr;
    FileId lock_, current_, mark_, begun_, ended_;  // ended_: the newest snapshot
    std::vector<Segment> segments_;    // by first; current_ is the last one's
    std::vector<Snapshot> snapshots_;  // by sequence, bad ones too
    std::vector<std::uint64_t> spares_;
    std::uint64_t spare_newest_ = 0;
    Bytes buffer_;                     // room for frames that are not in the file yet,
    std::size_t buffered_ = 0;         // and how much of it they take
    Bytes scratch_;
    Bytes path_, new_path_;            // where paths are made
    Bytes piece_;                      // of the snapshot that was begun, not in its file yet
    std::uint64_t written_ = 0;        // bytes of it that are, and how many of those are synced
    std::uint64_t synced_ = 0;
    std::uint32_t crc_ = 0;            // of those bytes
    std::uint64_t size_ = 0;           // of the current segment
    std::uint64_t offset_ = 0;         // where buffer_ goes
    std::uint32_t chain_ = 0;
    std::uint32_t salt_ = 0;           // of header checksums: another storage's are never right
    Sequence appended_ = 0;
    Sequence durable_ = 0;
    std::uint64_t ensemble_ = 0;
    std::uint64_t id_ = 0;
    std::uint32_t idle_flushes_ = 0;   // since the last try to make a spare
    std::size_t files_made_ = 0;       // segments and snapshots, since the last flush
    Time time_{INT64_MIN / 4};         // before any that a caller has
    Time purged_at_{INT64_MIN / 4};    // the beginning of the last purge
    bool is_purging_ = false;          // until nothing is needless
    bool full_ = false;
    bool may_found_ = true;
    bool is_foreign_ = false;          // the files are not the owner's
    bool is_open_ = false;             // open has returned ok
    Errc failed_ = Errc::ok;
    Bytes reason_;
    RecoveryReport report_;
};

#endif  // COORD_NO_FILES

#ifndef COORD_NO_THREADS

// Puts a thread between a replica and a storage that blocks: for loops that may not wait for a
// disk. Changes are queued, and made behind the caller's back. What is flushed while a flush is
// under way becomes one flush. A call waits where 16 MiB are queued, and then for the thread to
// take them: a loop that outruns its disk is the worse for it, but nothing is lost or swapped.
// What was accepted is not refused afterwards:
//   No space for a record: it waits with all that is behind it, has_room() is false and further
//   changes are storage_full, each of them a reason to try again.
//   No space for a snapshot: a later call of the same one is storage_full, and it is given up.
//   Where the end of one cannot be made, for which nothing spoke when it was accepted, the storage
//   has failed. So it is best read before; and while has_room() is false, end waits for the disk.
// The time given to polls has to be real: one that only counts polls would run ahead of the disk,
// and sessions would expire while it works.
// A disk that is slow: what a leader before it has not made durable its followers commit, and
// answer their clients, without it; its own clients wait for its disk. After Timing::silence in
// which that disk alone has stood still another replica leads, as it does without the thread, where
// each slow flush is a pause of the whole replica.
class BackgroundStorage final : public Storage {
public:
    // inner must outlive it, and its flush return when all is durable or it has failed. on_progress
    // runs on the thread when a call would now answer otherwise, to wake a loop, until the
    // destructor has returned; it calls nothing of this or of a replica.
    explicit BackgroundStorage(Storage& inner, Callback<void()> on_progress = {});
    // Stops the thread. What was flushed it finishes first; the rest is lost, as in a crash.
    ~BackgroundStorage() override;
    BackgroundStorage(const BackgroundStorage&) = delete;
    BackgroundStorage& operator=(const BackgroundStorage&) = delete;

    Errc open(RecoverySink& sink, const StorageOwner& owner) override;  // here the caller waits
    Errc start_over(std::uint64_t entropy) override;                    // and here
    bool may_found() const override { return inner_.may_found(); }      // set by these two alone
    Errc append(BytesView record) override;
    Errc begin_snapshot() override;
    Errc write_snapshot(BytesView piece) override;
    Errc end_snapshot(Sequence first_needed, bool replaces) override;
    // While the thread is busy it is asked to read: throttled_op, and the same call gets it later.
    Errc read_snapshot(Sequence snapshot, std::uint64_t offset, std::size_t size,
                       Bytes& out) override;
    Errc flush() override;
    Sequence appended() const override;
    Sequence durable() const override;
    Errc health() const override;
    bool has_room() const override;
    std::uint64_t id() const override;
    void set_time(Time now) override { time_ = now; }  // the storage behind hears it with a flush

private:
    struct Work;
    Storage& inner_;
    Callback<void()> on_progress_;
    Time time_{INT64_MIN / 4};         // before any that a caller has
    detail::Owned<Work> work_;         // since open
};

#endif  // COORD_NO_THREADS

// =================================================================================================
// Part One, chapter 7: Log
// =================================================================================================
// Purpose    A replica's history: the newest stretch of it in memory, what of it is durable, and
//            the two epochs that Zab keeps beside it.
// Invariants L1 Each entry names the zxid and the checksum of the one before it: no hole, no swap.
//            L2 What is durable is a prefix of what was appended; only the durable part is
//            reported, voted with, acknowledged and applied.
//            L3 The accepted epoch never falls, nor does the current one, which is never higher.
//            L4 A snapshot is of committed transactions alone; installing one replaces the history
//            in one record.
//            L5 What is forgotten stands in a snapshot that is durable first, the epochs too.
// May touch  The storage.
// Format     A record is u32 length of all, u32 CRC32C of what follows, u8 kind, and
//            entry:    u64 zxid, u64 previous zxid, u32 previous crc, i64 time in ms, u64 session,
//                      u64 cxid, u64 confirmed, u8 operation, body
//            truncate: u64 zxid, the last one kept
//            accepted: u32 epoch, u32 leader       current: u32 epoch
//            base:     u64 zxid, u32 crc, u32 accepted epoch, u32 its leader, u32 current epoch,
//                      u8 1 = installed; the state follows. It starts a snapshot, and has the
//                      epochs of the time when that was begun.

enum class RecordKind : std::uint8_t {
    entry = 1,
    truncate = 2,
    accepted = 3,
    current = 4,
    base = 5,
};

constexpr std::size_t entry_header_bytes = 62;

// Reads one whole entry; its views are into record. RETURNS corrupt.
Errc decode_entry(BytesView record, Txn& txn);
// The same of one that decode_entry or encode_entry has had in its hands: no look at its checksum.
void read_entry(BytesView record, Txn& txn);
// Appends one entry with its length and checksum. RETURNS the checksum.
std::uint32_t encode_entry(const Txn& txn, Bytes& out);

// A point in a history: the zxid and the checksum of the entry there.
struct LogPosition {
    Zxid zxid;
    std::uint32_t crc = 0;
};

class Log final : private RecoverySink {
public:
    struct Epochs {
        std::uint32_t accepted = 0;
        PeerId accepted_from;      // the leader that the accepted epoch was promised to
        std::uint32_t current = 0;
    };

    explicit Log(Storage& storage) : storage_(storage) {}

    // Reads what the storage holds. RETURNS corrupt or storage_failed; reason() then says more.
    Errc open(const StorageOwner& owner = {});
    const char* reason() const { return reason_; }
    // After open was corrupt: sets everything aside and is an empty log, of another storage id.
    Errc start_over(std::uint64_t entropy);
    std::uint64_t storage_id() const { return storage_.id(); }
    bool may_found() const { return storage_.may_found(); }
    // The newest snapshot: the point that it is of, its state's size and bytes. Appends what there
    // is of size bytes from offset on. read RETURNS storage_failed, or throttled_op: not now.
    LogPosition snapshot_position() const { return snapshot_position_; }
    std::uint64_t snapshot_bytes() const { return snapshot_bytes_; }
    Errc read_snapshot(std::uint64_t offset, std::size_t size, Bytes& out) const;

    LogPosition last() const;                       // newest entry, or the base
    Zxid base() const { return base_.zxid; }        // entries after this one are in memory
    const Epochs& epochs() const { return epochs_; }
    bool contains(Zxid zxid) const;                 // the base counts as contained
    LogPosition position_at_or_before(Zxid zxid) const;  // REQUIRES zxid >= base()
    std::uint32_t crc_at(Zxid zxid) const;          // REQUIRES contains(zxid)
    BytesView entry_after(Zxid zxid) const;         // the next one's record; REQUIRES one
    // A run of whole records after zxid, of at most bytes_max but at least one, in one piece.
    // RETURNS empty at the end: of the log, or of what is asked for. last_sent is the zxid of the
    // last record in it.
    BytesView entries_after(Zxid zxid, std::size_t bytes_max, Zxid& last_sent,
                            Zxid end = Zxid{UINT64_MAX}) const;
    std::size_t size() const { return entries_.size(); }
    std::size_t count_after(Zxid zxid) const { return entries_.size() - find(zxid); }
    // Those of them that are admits: few, and what counts in an election.
    const std::vector<Zxid>& admits() const { return admits_; }
    BytesView admit_at(Zxid zxid) const;            // its body; REQUIRES that it is one
    // The table of voters at the end: applied's, and what the entries after that change.
    VoterTable voters_at_end(const Machine& applied) const;

    // Changes: each is one record, buffered until flush. All RETURN storage_failed, or
    // storage_full, and then nothing has changed.
    Errc append(BytesView record, const Txn& txn);  // REQUIRES that it follows last(): L1
    Errc append(const Txn& txn);                    // the same, not encoded yet
    Errc truncate(Zxid zxid);                       // REQUIRES contains(zxid)
    Errc accept_epoch(std::uint32_t epoch, PeerId leader);
    Errc set_current_epoch(std::uint32_t epoch);
    Errc flush();

    // A snapshot of what is committed and durable, of the state at position, in pieces while the
    // log goes on; what was begun before is given up. read_begun reads it again. end makes it the
    // newest, and forgets the entries that it covers but the last entries_kept (L5).
    Errc begin_snapshot(LogPosition position);
    Errc write_snapshot(BytesView state_piece);
    Errc read_begun(std::uint64_t offset, std::size_t size, Bytes& out) const;
    Errc end_snapshot(std::size_t entries_kept);
    // One that takes the place of this history (L4): begun, written in pieces as above, and ended.
    // Until the end nothing is changed.
    Errc begin_install(LogPosition position);
    void give_up_snapshot();  // one that was begun: its room is free again
    Errc end_install();

    Sequence appended() const { return storage_.appended(); }
    bool has_room() const { return storage_.has_room(); }
    void set_time(Time now) { now_ = now, storage_.set_time(now); }

    // What of it would survive a crash now.
    Errc refresh_durable();                         // reads the storage's watermark
    Zxid durable_last() const { return durable_last_; }
    const Epochs& durable_epochs() const { return durable_epochs_; }
    bool is_dirty() const { return dirty_; }        // something is appended and not flushed
    bool is_waiting() const { return !marks_.empty(); }  // something is flushed and not durable
    Time waiting_since() const { return marks_.empty() ? never : marks_.front().flushed_at; }
    void audit() const;

private:
    struct Entry {
        Zxid zxid;
        std::uint32_t crc = 0;
        std::uint32_t length = 0;
        std::uint32_t offset = 0;
        std::uint32_t block = 0;    // counted from the first block ever
        Sequence sequence = 0;
    };
    struct Block {
        detail::Owned<char[]> bytes;
        std::size_t size = 0;
        std::size_t used = 0;
    };
    struct Mark {
        Sequence sequence = 0;
        Zxid last;
        Epochs epochs;
        Time flushed_at;
    };

    void on_record(Sequence sequence, BytesView record) override;
    void on_snapshot(Sequence sequence, BytesView head, std::uint64_t size) override;
    void recover_entry(Sequence sequence, BytesView record);
    void recover_truncate(Zxid zxid);
    void recover_epochs(RecordKind kind, Reader& in);
    void damage(const char* reason);
    void push_entry(std::size_t length, const Txn& txn, std::uint32_t crc, Sequence sequence);
    void cut_after(Zxid zxid);
    void drop_through(std::size_t count);
    void drop_needless();
    static Block make_block(std::size_t size);
    void spare_block(Block&& block);
    void replace_with(LogPosition position);
    void write_base(LogPosition position, bool installed);
    Errc write(RecordKind kind, BytesView fields);
    Errc write_epochs(RecordKind kind, const Epochs& epochs);
    std::size_t find(Zxid zxid) const;              // number of entries at or before zxid
    BytesView bytes_of(const Entry& entry) const;
    char* reserve(std::size_t size);                // room for the next entry, not taken yet

    Storage& storage_;
    detail::Ring<Entry> entries_;
    std::vector<Zxid> admits_;
    detail::Ring<Block> blocks_;
    std::vector<Block> spare_blocks_;
    std::uint32_t first_block_ = 0;
    LogPosition base_;
    Epochs epochs_;
    Epochs durable_epochs_;
    Zxid durable_last_;
    detail::Ring<Mark> marks_;
    LogPosition snapshot_position_;  // of the newest
    Sequence snapshot_sequence_ = 0;
    std::uint64_t snapshot_bytes_ = 0;
    LogPosition begun_position_;     // of the one that is being written
    std::uint64_t begun_bytes_ = 0;
    Epochs begun_epochs_;
    Zxid needless_;                  // entries up to this one go, a few at a time
    Bytes scratch_;
    const char* reason_ = "";
    Time now_;
    bool anchored_ = false;          // recovery has seen where the history starts
    bool dirty_ = false;
};

// =================================================================================================
// Part One, chapter 8: Messages
// =================================================================================================
// Purpose    The peer protocol as values and bytes. No behaviour.
// Invariants Bytes that are not exactly one message of this ensemble to this replica do not decode.
//            K1 Where the ensemble has keys, a message is handed on that was sealed with one of
//            them, by this sender for this receiver, each in the very life that it lives now, and
//            that was not handed on before.
//            K2 What is not changes nothing; but a hello that answers the challenge of this life
//            says which life of its sender is the one of now.
//            K3 A key is in no message, no log and no text.
// May touch  Chapters 1 and 2.
// Format     u32 magic and version, u32 CRC32C of what follows, u64 ensemble, u32 from, u32 to,
//            u64 nonce, u8 type, u32 epoch, and then the type's fields in the order of Message. The
//            checksum leaves out the entries of a proposal, which have their own.
//
//   type          from -> to        fields and meaning
//   notification  any -> voter      sequence: newest wins; leader: the vote; current_epoch, zxid:
//                                   the sender's own history; phase: its role; heard, reachable:
//                                   whom it hears, and whom in both directions
//   follower_info learner -> leader attempt, accepted_epoch, leader: whom that was promised to;
//                                   storage: its id; phase: 1 = may found an ensemble
//   leader_info   leader -> learner attempt: that it answers; epoch: the new one; sequence: how
//                                   much the leader has heard by now
//   ack_epoch     learner -> leader attempt, current_epoch, zxid and crc: the last it has;
//                                   storage and phase as above; sequence: of the leader_info
//   diff          leader -> learner attempt, zxid: go on after it, which is the last you have
//   trunc         leader -> learner attempt, zxid: cut what you have after it, or say what you have
//   snap          leader -> learner attempt, zxid, crc, total: fetch this snapshot
//   chunk_request learner -> leader attempt, zxid, offset
//   chunk         leader -> learner attempt, zxid, offset, total, payload
//   new_leader    leader -> learner zxid: the end of the history to have before the epoch is yours
//   up_to_date    leader -> learner commit: serve
//   proposal      leader -> learner zxid: what the entries follow; commit; payload: entries
//   ack           learner -> leader attempt, zxid: durable up to; commit: received up to; phase: 0
//                                   epoch not durable, 1 it is, 2 serving; offset: 1 = what you
//                                   sent does not follow what I received
//   commit        leader -> learner commit, digest: the leader's at commit
//   ping          leader -> learner sequence, commit, digest, confirmed: your touches confirmed;
//                                   phase: 1 = the leader's disk is full
//   pong          learner -> leader attempt, sequence: of the ping; touch: my number for this
//                                   list; offset of total: the part; payload: u64 ids of sessions
//                                   alive here
//   request       learner -> leader payload: requests, each u64 session, cxid, confirmed, u8
//                                   operation, string body
//   sync          learner -> leader sequence
//   synced        leader -> learner sequence, zxid: apply this much and the sync is done
//   refused       leader -> learner confirmed: the nonce of the life that is meant; phase: why

enum class MessageType : std::uint8_t {
    notification = 1, follower_info, leader_info, ack_epoch, diff, trunc, snap, chunk_request,
    chunk, new_leader, up_to_date, proposal, ack, commit, ping, pong, request, sync, synced,
    refused,
};
constexpr std::uint8_t message_type_last = static_cast<std::uint8_t>(MessageType::refused);
const char* name(MessageType type);

// Why a leader refuses one life of a replica: it has proof, so that it is so for ever.
enum class Refusal : std::uint8_t { rolled_back = 1, twice = 2 };
const char* text(Refusal refusal);

struct Message {
    MessageType type = MessageType::notification;
    PeerId from;
    PeerId to;
    std::uint64_t ensemble = 0;
    std::uint64_t nonce = 0;   // of the sender's start
    std::uint32_t epoch = 0;   // that the message belongs to; 0 in an election

    std::uint64_t attempt = 0;
    PeerId leader;
    std::uint32_t accepted_epoch = 0;
    std::uint32_t current_epoch = 0;
    Zxid zxid;
    std::uint32_t crc = 0;
    Zxid commit;
    std::uint64_t digest = 0;
    std::uint64_t sequence = 0;
    std::uint64_t confirmed = 0;
    std::uint64_t touch = 0;
    std::uint64_t offset = 0;
    std::uint64_t total = 0;
    std::uint8_t phase = 0;
    std::uint64_t heard = 0;      // bit i: the i-th voter
    std::uint64_t reachable = 0;
    std::uint64_t storage = 0;
    BytesView payload;            // into the bytes that were decoded, or the caller's
};

constexpr std::size_t message_header_bytes = 37;
constexpr std::size_t message_overhead_bytes = 192;  // no message but for its payload is larger

void encode_message(const Message& message, Bytes& out);    // appends
// RETURNS corrupt: damaged, cut, foreign version, unknown type, or bytes left over. Entries are to
// be looked at by decode_entry.
Errc decode_message(BytesView bytes, Message& message);

// The voters of an ensemble, in the order of their ids, and what a quorum of them is.
class Voters {
public:
    static constexpr std::size_t count_max = 63;
    Voters() = default;
    explicit Voters(std::vector<PeerId> ids);  // sorts; REQUIRES is_valid(ids)
    static bool is_valid(const std::vector<PeerId>& ids);  // 1 to 63, distinct, none 0
    std::size_t size() const { return ids_.size(); }
    PeerId operator[](std::size_t i) const { return ids_[i]; }
    bool contains(PeerId id) const { return bit(id) != 0; }
    std::uint64_t bit(PeerId id) const;        // one bit, or 0 for a stranger
    bool is_quorum(std::uint64_t bits) const;  // more than half

private:
    std::vector<PeerId> ids_;
};

// The envelopes of messages, where the ensemble has keys. Which life of a peer hears, and which one
// speaks, is found out by a challenge, a number that only a hello since then can repeat; so that
// yesterday's messages are worth nothing, nor are those of another direction, or of today, twice.
//
// FORMAT: u32 magic and version, u8 kind, u64 nonce of the sender's life, u64 nonce of the life
// that it is for, u64 sequence, what is in it, and SipHash-2-4 of 128 bits of all that is before.
//
//   kind     for                        what is in it
//   message  the life that was found    a message, as above
//   hello    the one that it answers,   u64 challenge, u64 the challenge that it answers; 0: none
//            or 0
//
// The hash is made with a key for one ensemble, sender and receiver: the second half of the
// ensemble's xor the hash, by the first half, of "coord: seal", u64 ensemble, u32 from, u32 to.
class Seals {
public:
    static constexpr std::size_t overhead_bytes = 45;
    static constexpr std::size_t key_bytes = 32;
    static constexpr std::size_t keys_max = 2;       // the first seals, each opens
    static constexpr std::size_t peers_max = 1024;   // then who was quiet for longest is forgotten
    static constexpr std::uint64_t window = 64;      // of sequences: what comes later is dropped
    enum class Verdict : std::uint8_t { message, hello, unsealed, replayed };

    // retry: between two hellos to a peer that does not answer.
    Seals(PeerId self, std::uint64_t ensemble, std::uint64_t nonce, std::uint64_t entropy,
          const std::vector<Bytes>& keys, Duration retry);
    static bool is_valid(const std::vector<Bytes>& keys);  // none, one or two; none all zeros
    // What is to be sent to a peer: the message sealed; or a hello, where it is not known which
    // life of it hears; or nothing, where it was greeted just now. Lives until the next call.
    BytesView seal(Time now, PeerId to, BytesView message);
    // What has come from a peer. RETURNS what it is, and of a message what is in it; answer is to
    // be sent back, unless it is empty, and lives until the next call.
    Verdict open(Time now, PeerId from, BytesView bytes, BytesView& message, BytesView& answer);
    std::uint64_t life_of(PeerId peer) const;    // its nonce; 0: not known
    static BytesView content(BytesView sealed);  // for traces: nothing is looked at

private:
    struct Peer {
        std::array<SipHash, keys_max> theirs;  // that open, and
        SipHash own;                           // that seals
        std::uint64_t nonce = 0;               // of its life; 0: not known
        std::uint64_t sent = 0;                // the newest sequence
        std::uint64_t newest = 0;              // of those received
        std::uint64_t seen = 0;                // bit i: newest - i was, or comes too late
        std::uint64_t challenge = 0;           // that has no answer yet; 0: none
        Time greeted_at{INT64_MIN / 4};
        Time heard_at{INT64_MIN / 4};
    };
    SipHash key_for(std::size_t place, PeerId from, PeerId to) const;
    Peer peer_of(PeerId id) const;
    Peer& take_in(Time now, PeerId id, const Peer* known);
    bool is_sealed(const Peer& peer, BytesView bytes) const;
    static bool is_new(Peer& peer, std::uint64_t sequence);
    void begin(Peer& peer, std::uint8_t kind, std::uint64_t to);
    BytesView end(const Peer& peer);
    BytesView greet(Time now, Peer& peer, std::uint64_t to, bool asks, std::uint64_t echo);
    void on_hello(Time now, Peer& peer, Reader in, BytesView& answer);

    const PeerId self_;
    const std::uint64_t ensemble_;
    const std::uint64_t nonce_;
    const Duration retry_;
    Rng rng_;
    std::array<SipHash, keys_max * 2> keys_;  // halves
    std::size_t key_count_;
    detail::Numbered<std::uint64_t, Peer> peers_;
    Bytes out_;
};

// Messages to be sent, encoded one after the other in memory that is used again.
class Outbox {
public:
    Outbox(PeerId self, std::uint64_t ensemble, std::uint64_t nonce)
        : self_(self), ensemble_(ensemble), nonce_(nonce) {}
    void send(PeerId to, Message& message);  // fills in from, to, ensemble and nonce
    template <class Send>
    void drain(Send&& deliver) {
        for (; !pieces_.empty(); pieces_.pop()) {
            const Piece& piece = pieces_.front();
            deliver(piece.to, BytesView(bytes_).substr(piece.offset, piece.size));
        }
        bytes_.clear();
    }
    bool empty() const { return pieces_.empty(); }

private:
    struct Piece {
        PeerId to;
        std::size_t offset;
        std::size_t size;
    };
    PeerId self_;
    std::uint64_t ensemble_;
    std::uint64_t nonce_;
    Bytes bytes_;
    detail::Ring<Piece> pieces_;
};

// =================================================================================================
// Part One, chapter 9: Election
// =================================================================================================
// Purpose    Finds a voter that a quorum takes for the most advanced: a hint, no more. Safety comes
//            from discovery (chapter 10).
// Invariants E1 A candidate is voted for only by voters that hear it and are heard by it, and only
//            while it reaches a quorum both ways: a deaf or mute voter wins nothing.
//            E2 The best of those candidates is the one with the highest (current epoch, last
//            durable zxid, id).
//            E3 Who is no voter has no voice: it asks the voters who leads, and follows that one.
// May touch  Chapter 8.
// Reading    ZooKeeper's FastLeaderElection. Deviation D1: there is no round number. A vote is a
//            state that is repeated, and the newest from each voter counts; a vote out of date
//            costs time and nothing else, and no voter is ever in the wrong round.

struct Timing {
    Duration heartbeat = milliseconds(100);  // between two pings of the leader
    Duration silence = milliseconds(500);    // a peer not heard for so long is gone
    // A leader looks for containers and nodes with a ttl that are due at that interval, in slices,
    // and removes so many a minute at the most; one whose path has no room in a message stays.
    // Duration{INT64_MAX}: it never looks.
    Duration reap_interval = seconds(60);
    std::uint32_t reaps_per_minute = 10000;
    Duration retry() const { return heartbeat / 2; }      // between repetitions of a request
    Duration settle() const { return heartbeat / 4; }     // a quorum waits for a better candidate
};

struct Vote {
    std::uint32_t current_epoch = 0;
    Zxid zxid;
    PeerId id;
    friend bool operator<(const Vote& a, const Vote& b);
};

// An observing replica follows, and is no voter.
enum class Role : std::uint8_t {
    looking = 0, following = 1, leading = 2, failed = 3, observing = 4
};
const char* name(Role role);

class Election {
public:
    Election(PeerId self, const Voters& voters, const Timing& timing);

    void start(Time now, const Vote& own);  // forgets what was; next_deadline is now
    void on_notification(Time now, const Message& message);
    bool is_news(const Message& message) const;  // later than all that this peer has said
    void poll(Time now, Outbox& out);       // considers, decides, repeats
    Time next_deadline() const { return deadline_; }
    PeerId winner() const { return winner_; }  // nobody while there is none
    PeerId candidate() const { return candidate_; }
    // What a replica that is not looking answers to one that is.
    void answer(PeerId to, Role role, PeerId leader, Outbox& out);
    void forget(PeerId peer);               // a hint that it is gone

private:
    struct Voice {
        Vote own;
        PeerId candidate;
        Role role = Role::looking;
        Time heard_at;
        std::uint64_t nonce = 0;
        std::uint64_t sequence = 0;
        std::uint64_t heard = 0;
        std::uint64_t reachable = 0;
        bool known = false;
        bool gone = false;        // so a hint has said, since it was last heard
    };
    bool is_fresh(const Voice& voice, Time now) const;
    std::uint64_t heard(Time now) const;      // bits of the voters heard lately, self included
    std::uint64_t reachable(Time now) const;  // of those that hear us too
    PeerId best_candidate(Time now) const;
    std::uint64_t agreeing(Time now) const;
    void consider(Time now);
    void broadcast(Time now, Outbox& out, Duration pause);

    const PeerId self_;
    const Voters& voters_;
    const Timing timing_;
    Vote own_;
    detail::Array<Voice> voices_;
    PeerId candidate_;
    PeerId winner_;
    std::uint64_t sequence_ = 0;
    Time deadline_;
    Time repeat_at_;
    Time settled_at_ = never;   // when a quorum that agrees has waited long enough
    bool changed_ = false;      // what we say differs from what we said last
    std::uint64_t said_heard_ = 0;
    std::uint64_t said_reachable_ = 0;
};

// =================================================================================================
// Part One, chapter 10: Leader
// =================================================================================================
// Purpose    Discovery, synchronization and broadcast, seen from the leader.
// Invariants Z1 It leads an epoch that it has itself accepted, durably, before it tells anybody.
//            Z2 It sends nobody a history before a quorum has promised it the epoch, none of them
//            with a history newer than its own.
//            Z3 It commits nothing before a quorum has its whole initial history and the current
//            epoch durable; then that history, all at once.
//            Z4 An entry commits when a quorum, each with the epoch current, has it durable. Its
//            own disk counts as anybody's.
//            Z5 Its history only grows while it leads.
//            Z6 A session's requests are numbered in cxid order, each once, none after its close.
//            Z7 A voter counts - its promise, its acknowledgements, its answers to rounds, its
//            being in reach - only with the storage that the table of voters at the end of this
//            leader's own history has for it. What it has acknowledged belongs to that storage.
//            Z8 While a voter is missing in that table, or its founding is not complete, nothing
//            less than all voters is a quorum, and each of them must say that it may found; all are
//            then in the table before anything else is numbered.
//            Z9 Else the table changes by one voter at a time: the storage that counted is taken
//            out, then the new one is put in; each when the change before it is committed, by an
//            established leader, while the new one is in step and answers what it is asked now.
//            Z10 A life is refused on proof alone: what it says was said after what it contradicts.
//            Z11 It gives up where its own disk alone has stood still for Timing::silence: a
//            quorum of the others has committed without it, within that, and each time in a quarter
//            of what it stands still.
//            Z12 It numbers a reap of what is due by the state that is applied here. Between two
//            polls, and in one, looks and reaps are bounded, however many nodes are due.
//            Z13 A session that is silent for a quarter of its timeout, or two, or three, has that
//            in the log, for the next leader to go on from; and that it was heard of again, before
//            anybody may count on that. Leaders who each serve for less than a quarter add nothing.
//            What one poll does of it is bounded, and so are the ends that are under way, however
//            many sessions have gone at once.
//            Z14 A session that was local is opened once. It is numbered where its replica knew, as
//            it asked, how each opening and each end of it before had come out; so that nothing
//            that was asked of a session which is over meets another one of that id.
//            Z15 A learner that is no voter observes. An established leader takes it on, sends it
//            what is committed and nothing else, and counts nothing of what it promises,
//            acknowledges and answers. Voters are sent to first, and those who observe so much in
//            a step. So many observe at the most, so many of them fetch a snapshot, and who is
//            silent is forgotten.
// May touch  Chapters 4 (reads), 7, 8.
// Reading    Zab, DSN'11, sections IV and V; ZooKeeper's Leader and LearnerHandler. Every message
//            of a phase is repeated until its answer is there, and every answer may come twice.
//            Z9 is the rule of Raft for a change of membership by one server (Ongaro, 2014, 4.1,
//            with the correction of 2015 that a leader first commits something of its own term).
//            A storage is the server there. Two majorities of one table, or of a table and the one
//            after it, have a storage in common, since no voter is in both with two storages; so
//            what was committed under one is known to a quorum under the other.

struct LeaderCounters {
    std::uint64_t proposals = 0;
    std::uint64_t requests_ignored = 0;   // repeated, out of turn, of a session that is gone
    std::uint64_t retransmissions = 0;
    std::uint64_t snapshots_sent = 0;
    std::uint64_t sessions_expired = 0;
    std::uint64_t reaps = 0;              // that it numbered
    std::uint64_t admissions = 0;         // changes of the table of voters that it numbered
    std::uint64_t refusals = 0;           // lives of replicas that it refused, with proof
};

// A learner, as its leader knows it.
struct PeerState {
    PeerId id;
    bool is_voter = false;
    bool counts = false;    // with the storage that it has (Z7)
    bool in_step = false;   // synchronized, and heard from lately
    bool fetching = false;  // a snapshot
    Zxid received;          // the last that it has said it has
    Zxid acked;             // durable there
    Time heard_at;          // long before 0: never
};

class Leader {
public:
    enum class Phase : std::uint8_t { idle, discovery, promise, synchronization, broadcast };

    Leader(PeerId self, const Voters& voters, const Timing& timing, Log& log, const Limits& limits,
           std::size_t message_bytes_max);

    // Before start: the table of voters, by the state and what of the log is not in it yet; and
    // whether the own storage may found an ensemble. A leader that is not told counts everybody.
    void know(const Machine& machine, bool may_found);
    void start(Time now);   // a prospective leader: discovery
    void stop();
    Phase phase() const { return phase_; }
    std::uint32_t epoch() const { return epoch_; }
    bool is_established() const { return phase_ == Phase::broadcast; }
    Zxid committed() const { return committed_; }
    // Why it has to give up, or null. Then stop() is due.
    const char* resignation() const { return resignation_; }
    const char* barred() const { return barred_; }  // why it will never be established, or null
    bool lacks_space() const;  // that is why it resigns: others should lead
    Errc error() const { return error_; }  // storage_failed: the log could not be written
    const LeaderCounters& counters() const { return counters_; }
    // Voters that are in step: synchronized and heard from lately, itself included.
    std::size_t synced(Time now) const;
    std::size_t observers() const { return observers_.size(); }  // that it has taken on (Z15)
    // Of voters and of those who observe, itself not included: all voters, and so many of the
    // others at the most. They are as they are, and nothing is asked of them.
    void visit_peers(Time now, std::size_t observers_max,
                     const Callback<void(const PeerState&)>& visit) const;
    std::uint64_t voters_in_step(Time now) const;  // bits of those, itself included
    std::size_t observers_in_step(Time now) const;
    std::size_t syncs() const { return syncs_.size(); }  // that wait for a round

    // One for each message of a learner. Those of another epoch are ignored, and return false.
    bool receive(Time now, const Message& message, Outbox& out);
    void forget(PeerId peer);  // a hint that it is gone
    // Of learners in reach: whether one fetches the snapshot, and what the least advanced one has.
    bool is_fetched(Time now) const;
    Zxid needed(Time now) const;

    // BEFORE the flush: numbers nothing; sends proposals, pings and repetitions.
    void send(Time now, const Machine& machine, Outbox& out);
    std::uint64_t pings() const { return ping_sequence_; }  // grows when send has pinged
    // AFTER the flush: what is durable here counts; phases and commits move.
    void advance(Time now, Outbox& out);
    // After what committed has been applied: tells the followers, with the digest.
    void announce(const Machine& machine, Outbox& out);
    Time next_deadline(Time now) const;

    // Whether it may number requests: established, and its whole initial history applied.
    bool can_number(const Machine& machine);
    bool is_numbering() const { return sessions_armed_ && resignation_ == nullptr; }
    // Takes one request, of itself or of a learner: numbers and appends it, or ignores it.
    // REQUIRES can_number().
    void number(std::int64_t wall_ms, const Machine& machine, const Txn& request);
    void on_applied(const Txn& txn, const Machine& machine);  // frees what numbering remembered
    void audit(const Machine& machine) const;
    // Numbers for how long sessions have been silent, that they have been heard of again, and the
    // ends of those that have not been for their timeout: some each call. REQUIRES can_number().
    void look_at_sessions(std::int64_t wall_ms);
    void touch(SessionId session);  // its own, when a round has begun
    // Looks for containers and nodes with a ttl that are due, a few each call, and numbers their
    // reaps. REQUIRES can_number().
    void reap(Time now, std::int64_t wall_ms, const Machine& machine);
    // Whether the table of voters is due for a change (Z8, Z9); and numbers it. REQUIRES
    // can_number().
    bool is_admission_due(Time now) const;
    void admit(Time now, std::int64_t wall_ms);
    // Requests of learners that came since the last call: f(Txn), in order.
    template <class Take>
    void take_requests(Take&& take);

    // Sync rounds and leases of this replica's own sessions.
    void request_sync(std::uint64_t sequence, PeerId from = {});
    bool take_own_synced(std::uint64_t& sequence, Zxid& zxid);
    // It certainly led at this time; for its own sessions it counts when lease_at is applied.
    Time lease_from() const { return lease_from_; }
    Zxid lease_at() const { return lease_at_; }

private:
    struct Life {
        std::uint64_t nonce = 0;
        std::uint64_t storage = 0;
        std::uint64_t pings = 0;      // sent when its first answer came
    };
    struct Peer {
        PeerId id;
        std::uint64_t bit = 0;        // 0: it observes
        std::uint64_t nonce = 0;      // the life of it that attempt belongs to
        std::uint64_t storage = 0;    // that life's; 0: it has not said
        bool may_found = false;
        Time met_at;                  // that life
        std::uint64_t met_pings = 0;  // sent until then: who answers a later one is alive
        Life proved;                  // the last one that has answered a ping
        Life before;                  // the one that had before
        std::uint64_t refused = 0;    // the nonce of one that was refused
        Refusal refusal{};
        bool informed = false;        // it has said follower_info
        bool bound = false;           // by a promise of this epoch, or a later one, to another (F7)
        std::uint32_t accepted_epoch = 0;
        bool promised = false;        // ack_epoch, for this epoch
        std::uint64_t attempt = 0;
        Zxid have;                    // what it reported
        std::uint32_t have_crc = 0;
        bool streaming = false;       // it gets proposals from cursor on
        bool fetching = false;        // it fetches a snapshot
        Zxid cursor;                  // last sent
        Zxid received;                // last it said it has
        std::uint64_t acked_by = 0;   // the storage that the next two are of
        Zxid acked;                   // durable there, with the epoch current
        bool epoch_current = false;
        std::uint64_t acked_tick = 0;  // tick_ when that grew last
        Time heard_at;
        Time asked_at;                // for a part of the snapshot
        Time progress_at;
        Time repeat_at;
        Time rewound_at;
        detail::Ring<Zxid> in_flight; // the last zxid of each proposal message
        std::uint64_t pong = 0;
        std::uint64_t touch = 0;      // newest whole list received
        std::uint64_t touch_in_parts = 0;  // a list of which parts are missing
        std::uint64_t touch_parts = 0;     // bits of those that are here
        std::uint64_t touch_confirmed = 0;
        Zxid told;                    // commit last told
        std::uint64_t lease_round = 0;  // of an observer: a round that waits, and
        std::uint64_t lease_touch = 0;  // its touch then
    };
    struct Round {                    // a ping: whom it waits for, what it will prove
        std::uint64_t sequence = 0;
        Time sent_at;
        Zxid last;                           // of the log: no expiry before it is behind this
        bool armed = false;                  // it knew the sessions
        bool to_observers = false;           // it went to them, too
        std::vector<std::uint64_t> touches;  // of each voter, when it was sent
    };
    struct Sync {
        PeerId from;
        std::uint64_t sequence = 0;
        std::uint64_t round = 0;      // the ping that has to be answered
        Zxid zxid;
    };
    struct LiveSession {
        std::uint64_t numbered = 0;   // newest cxid in the log
        std::uint32_t timeout_ms = 0;
        std::uint32_t silent_ms = 0;  // no less than the log says of it
        Time expires_at;              // on clock_
        bool closing = false;
        bool expiring = false;        // closing, by the leader's own doing
    };
    struct Look {
        Time at;                      // on clock_
        std::uint64_t order = 0;
        SessionId session;
    };
    struct Queued {
        SessionId session;
        std::uint64_t cxid = 0;
        std::uint64_t confirmed = 0;
        OpCode op = OpCode::create;
        Bytes body;
    };

    void on_follower_info(Time now, Peer& peer, const Message& message, Outbox& out);
    void on_ack_epoch(Time now, Peer& peer, const Message& message, Outbox& out);
    void on_ack(Time now, Peer& peer, const Message& message, Outbox& out);
    void on_pong(Peer& peer, const Message& message);
    void on_chunk_request(Peer& peer, const Message& message, Outbox& out);
    void on_request(const Message& message);
    bool is_stale(const Peer& peer, const Message& message) const;
    bool is_in_step(const Peer& peer, Time now) const;
    Peer* take_on(const Message& message);
    void forget_observers(Time now);
    bool are_many_fetching(Time now) const;
    void meet(Time now, Peer& peer, const Message& message);
    void identify(Peer& peer, const Message& message);
    void recount();
    bool has_quorum(std::uint64_t bits) const;
    bool is_clone(Peer& peer, const Message& message);
    void refuse_clone(Peer& peer, const Message& message, Outbox& out);
    void refuse(Peer& peer, std::uint64_t nonce, Refusal refusal, Outbox& out);
    void send_refusal(Peer& peer, Outbox& out);
    void found();
    const PeerId* next_admission(Time now, std::uint64_t& storage) const;
    void lose(Time now, Peer& peer, Outbox& out);
    void begin_promise(Time now);
    void begin_synchronization(Time now, Outbox& out);
    void begin_broadcast(Outbox& out);
    void synchronize(Time now, Peer& peer, Outbox& out);
    void repeat(Time now, Peer& peer, Outbox& out);
    void stream(Time now, Peer& peer, Outbox& out, std::size_t& left);
    void stream_to_observers(Outbox& out);
    void rewind(Time now, Peer& peer);
    bool is_sync_ping_due() const;
    bool is_disk_behind();
    void ping(Time now, const Machine& machine, Outbox& out);
    void ping_observers(Time now, const Machine& machine, Outbox& out);
    void post_ping(Peer& peer, const Machine& machine, Outbox& out);
    void confirm_rounds(Outbox& out);
    void renew_leases();
    void renew_observers_leases(const Round& round);
    void advance_commit();
    void run_clock(Time now);
    Duration reap_rest() const;   // until it is looked for what is due, once all has been
    bool epoch_is_ours() const;   // accepted, durably: it may be told
    void post(Peer& peer, MessageType type, Outbox& out, Message message = {});
    std::size_t body_bytes_max() const;  // of an entry that a message can hold
    Zxid append(std::int64_t wall_ms, const Txn& request);
    void look_after(SessionId session, LiveSession& live, Duration rest);
    std::int64_t silent_quarters(const LiveSession& live) const;  // of its timeout: up to 4
    Time next_look(const LiveSession& live) const;
    bool expire(SessionId session, LiveSession& live, std::int64_t wall_ms);
    bool number_silence(std::int64_t wall_ms, BytesView body);
    void forget(SessionId session);
    bool hear(SessionId session);  // RETURNS whether it was silent, by the log
    void number_attach(std::int64_t wall_ms, const Txn& request, LiveSession& live);
    void number_open(std::int64_t wall_ms, const Machine& machine, const Txn& request);
    bool is_outdated(std::uint64_t id, std::uint64_t as_of) const;
    void note_end(SessionId session, Zxid zxid);
    Peer* find(PeerId id);
    Time next_repeat(const Peer& peer) const;
    template <class Predicate>
    std::uint64_t bits_where(Predicate&& predicate) const;

    const PeerId self_;
    const Voters& voters_;
    const Timing timing_;
    Log& log_;
    const Limits& limits_;
    const std::size_t message_bytes_max_;
    Phase phase_ = Phase::idle;
    std::uint32_t epoch_ = 0;
    Vote own_;                        // its history when it started
    Zxid initial_;                    // the end of its initial history
    Zxid committed_;
    const char* resignation_ = nullptr;
    const char* barred_ = nullptr;
    bool knows_ = false;              // the table of voters
    VoterTable table_;                // at the end of the log
    bool may_found_ = false;
    Zxid admitted_;                   // the newest change of it
    std::uint64_t counted_ = 0;       // bits of those that count (Z7)
    bool is_founding_ = false;        // all are needed (Z8)
    std::uint64_t tick_ = 0;          // how often somebody has acknowledged more
    detail::Array<Peer> peers_;       // in the order of the voters, itself among them
    detail::Numbered<std::uint64_t, Peer> observers_;  // by their ids (Z15)
    std::uint64_t observers_turn_ = 0;  // where they wait: the last that was streamed to
    bool observers_wait_ = false;       // for the next step
    Time observers_ping_at_;
    Time started_at_;
    Time phase_at_;                   // when discovery or promise began
    Time ping_at_;
    std::uint64_t ping_sequence_ = 0;
    std::uint64_t confirmed_sequence_ = 0;
    detail::Ring<Round> rounds_;
    detail::Ring<Sync> syncs_;
    detail::Ring<Sync> own_synced_;
    bool ping_now_ = false;
    Time lease_from_{INT64_MIN / 4};  // clocks may start below zero
    Zxid lease_at_;
    detail::Numbered<SessionId, LiveSession> sessions_;
    detail::Numbers opening_;  // nonces numbered and not yet applied, to ids of sessions
    detail::Numbers ended_;    // sessions that were local, or were refused, to the zxid of that
    Zxid ended_until_;         // and of those before (Z14)
    detail::Agenda<Look> looks_;      // one for each session, and some for those that have ended
    std::vector<SessionId> heard_;    // again, which the log does not say yet (Z13)
    bool looks_wait_ = false;         // for the next poll, or for room
    std::size_t closing_ = 0;         // of sessions_: those that expire
    bool sessions_armed_ = false;
    Zxid behind_at_;                  // durable here, while more than that is committed
    Time behind_since_;               // on clock_
    Zxid timed_;                      // not committed yet; how long that takes is measured
    Time timed_at_;                   // on clock_
    Duration pace_;                   // what it took the last time
    Time clock_;                      // runs with now, but not over gaps in the polling
    Time clock_read_at_;
    Time expire_at_;                  // on clock_: looked through again
    Time reap_at_;                    // on clock_: looked on for what is due
    std::uint64_t reap_place_ = 0;    // see Tree::next_due; 0: no looking through is under way
    Errc error_ = Errc::ok;
    detail::Ring<Queued> queued_;
    Bytes scratch_;
    LeaderCounters counters_;
};

template <class Take>
void Leader::take_requests(Take&& take) {
    for (; !queued_.empty(); queued_.pop()) {
        const Queued& queued = queued_.front();
        Txn request;
        request.session = queued.session;
        request.cxid = queued.cxid;
        request.confirmed = queued.confirmed;
        request.op = queued.op;
        request.body = queued.body;
        take(request);
    }
}

// =================================================================================================
// Part One, chapter 11: Learner
// =================================================================================================
// Purpose    Discovery, synchronization and broadcast, seen from a follower.
// Invariants F1 It promises an epoch higher than any before, or the same to the same leader again,
//            and says so when the promise is durable.
//            F2 It cuts or replaces its history only on the answer to the very attempt that it has
//            just reported: an old trunc or snap does nothing.
//            F3 It appends only what follows what it has, checksum included.
//            F4 It makes the epoch current when the leader's initial history is in its log before
//            it, and acknowledges when that record is durable.
//            F5 It reports as durable only what is.
//            F6 With what it promises it says which storage keeps the promise.
//            F7 An observer follows an established leader also where it has promised a later epoch
//            to another one, when it was a voter: nothing that it says counts. It promises nothing
//            lower then. What it has of a later epoch is not cut for such a leader: as a voter it
//            may have acknowledged it.
// May touch  Chapters 7 and 8.
// Reading    Zab, DSN'11, sections IV and V; ZooKeeper's Learner and Follower; the bugs A1-A15.

class Learner {
public:
    enum class Phase : std::uint8_t { idle, discovery, promise, fetching, receiving, following };

    Learner(PeerId self, const Timing& timing, Log& log, std::uint64_t first_attempt);

    void count_attempts_from(std::uint64_t attempt) { attempt_ = attempt; }  // before the first
    void set_may_found(bool may_found) { may_found_ = may_found; }
    void start(Time now, PeerId leader, Zxid committed = {},  // committed: known here to be
               bool observes = false);
    void stop();
    Phase phase() const { return phase_; }
    PeerId leader() const { return leader_; }
    std::uint32_t epoch() const { return epoch_; }
    bool is_serving() const { return phase_ == Phase::following; }
    bool is_in_step() const { return phase_ == Phase::receiving || is_serving(); }
    Zxid committed() const { return committed_; }
    // Why it has to look for another leader, or null. Then stop() is due.
    const char* departure() const { return departure_; }

    // One for each message of the leader. Others are ignored, and return false. RETURNS through
    // error() when the storage fails.
    bool receive(Time now, const Message& message, Outbox& out);
    Errc error() const { return error_; }
    std::uint64_t entries_corrupt() const { return entries_corrupt_; }  // with what came after them
    void send(Time now, Outbox& out);         // BEFORE the flush: repetitions
    void acknowledge(Time now, Outbox& out);  // AFTER the flush: what has become durable
    Time next_deadline() const;

    // A snapshot that has arrived whole, and the point that it is of. The replica installs it in
    // state and log and says installed, or refuses it. Its bytes may be taken as they arrive.
    bool has_snapshot() const { return snapshot_whole_; }
    BytesView snapshot() const { return snapshot_; }  // what has arrived and was not taken
    std::uint64_t fetched() const { return fetched_; }  // bytes of it that have arrived
    void take_chunk() { snapshot_.clear(); }
    LogPosition snapshot_position() const { return snapshot_position_; }
    void installed();
    void refuse_snapshot(const char* reason);
    // There is no room for it: it is asked for again from its beginning, later each time.
    void put_off_snapshot(Time now);
    bool waits_for_space() const { return phase_ == Phase::fetching && put_off_ > 0; }

    // The newest (zxid, digest) of the leader, to be compared when that zxid has been applied.
    Zxid digest_at() const { return digest_at_; }
    std::uint64_t digest() const { return digest_; }

    bool leader_is_full() const { return is_serving() && leader_full_; }

    bool pong_due() const { return pong_due_; }
    void pong(std::uint64_t touch, BytesView sessions, std::size_t message_bytes_max, Outbox& out);
    void pong_alone(Outbox& out);  // answers a round, and says nothing of sessions
    // Counts for who has applied confirmed_at.
    std::uint64_t touch_confirmed() const { return touch_confirmed_; }
    Zxid touch_confirmed_at() const { return touch_confirmed_at_; }
    void request(BytesView requests, Outbox& out);
    void request_sync(std::uint64_t sequence, Outbox& out);
    bool take_synced(std::uint64_t& sequence, Zxid& zxid);

private:
    void on_gathering(Time now, const Message& message);  // a ping without an epoch
    void on_leader_info(Time now, const Message& message);
    void on_cut(Time now, const Message& message);  // diff and trunc
    void on_snap(Time now, const Message& message, Outbox& out);
    void on_chunk(Time now, const Message& message, Outbox& out);
    void on_up_to_date(const Message& message);
    void on_new_leader(const Message& message);
    void on_proposal(const Message& message, Outbox& out);
    void on_ping(const Message& message);
    bool append_all(BytesView records, bool& gap);
    void see_commit(Zxid commit);
    void see_digest(const Message& message);
    void report(Time now, LogPosition have);   // a new attempt
    void make_epoch_current();
    bool is_promise_durable() const;
    bool is_promised(std::uint32_t accepted) const {
        return accepted == epoch_ || (observes_ && accepted > epoch_);  // F7
    }
    bool is_put_off();
    bool is_later(Time now) const;
    void ask_chunk(Time now, Outbox& out);
    void forget_snapshot();
    void depart(const char* reason);
    void ack(bool gap, Outbox& out);
    void post(MessageType type, Message& message, Outbox& out);

    const PeerId self_;
    const Timing timing_;
    Log& log_;
    Phase phase_ = Phase::idle;
    PeerId leader_;
    std::uint32_t epoch_ = 0;         // promised to this leader
    bool observes_ = false;
    std::uint64_t attempt_;
    bool may_found_ = true;
    LogPosition have_;                // what this attempt reports
    std::uint64_t answers_ = 0;       // the sequence of the leader_info that it answers
    Zxid initial_;                    // of new_leader
    bool initial_known_ = false;
    Zxid committed_;
    const char* departure_ = nullptr;
    std::uint64_t entries_corrupt_ = 0;
    Errc error_ = Errc::ok;
    Time heard_at_;
    Time repeat_at_;
    Zxid acked_;                      // what the last ack said
    std::uint8_t acked_phase_ = 0;
    bool ack_due_ = false;
    Bytes snapshot_;
    std::uint64_t fetched_ = 0;
    LogPosition snapshot_position_;
    std::uint64_t snapshot_total_ = 0;
    bool snapshot_whole_ = false;
    std::uint32_t put_off_ = 0;       // times that it was, since one was installed
    Zxid digest_at_;
    std::uint64_t digest_ = 0;
    bool leader_full_ = false;
    bool pong_due_ = false;
    std::uint64_t ping_sequence_ = 0;
    std::uint64_t touch_confirmed_ = 0;
    Zxid touch_confirmed_at_;
    struct Synced {
        std::uint64_t sequence = 0;
        Zxid zxid;
    };
    detail::Ring<Synced> synced_;
};

// =================================================================================================
// Part One, chapter 12: Replica
// =================================================================================================
// Purpose    The object that a program embeds: takes messages and time, switches between the roles,
//            carries requests from sessions to the log and results back.
// Invariants R1 Effects have one order, in poll: what was received; sends that need no disk; one
//            flush; sends that needed it; apply; callbacks.
//            R2 Memory is a function of the durable, committed log: nothing else is applied.
//            R3 A session's results and events come in the order of the log, its results in the
//            order of its requests; but too_many and what ends them all at once.
//            R4 A write is sent again until its outcome is applied here: it is never lost, and the
//            machine executes it once.
//            R5 A failed replica does nothing any more, and says why.
//            R6 A storage that does not count by its own history stands for nothing in an election,
//            and does not lead. One that has no space to lead stands for nothing for a while.
//            R7 A storage that has counted, and whose place another one has taken, has failed.
//            R8 What one read finds, all its parts, is of one state, whose zxid its answer names.
//            R9 A read waits for the state that it demands, and sees the writes before it in its
//            session, and none after it but those in a snapshot that is installed before it.
//            R10 A session is at one replica, the one whose attaching of it was applied last; where
//            it was before it is over as soon as that is applied there.
//            R11 What a node's ACL does not let a session read, no answer and no event shows it.
//            R12 What is answered and has not been told is bounded in bytes: beyond that no read is
//            answered before callbacks have run, and nothing is applied that such a read must not
//            see. Whose reads wait keeps nothing from being applied but what stands behind a write
//            of its own that comes after them, until they are answered, a bounded part each poll.
//            R13 A write that ends with its session or its replica, in whatever else than
//            outcome_unknown, has not been executed and never will be. Where the end is applied
//            here none is in doubt: what stands before it in the log has been answered.
//            R14 A local session is nowhere but here, and goes with the replica. Before the first
//            of its writes is sent it is opened in the log; from what that says on it is like any
//            other. Where that refuses it so are those writes, and it is local still.
// May touch  Everything above.
// Reading    "Rules for callers" in the manual above; the contracts of Storage and Transport.

// The application's: moves bytes between replicas. Called inside poll only.
class Transport {
public:
    virtual ~Transport() = default;
    // Must not block and must not call the replica's poll. bytes are lent for the call. A message
    // may be dropped: it is repeated.
    virtual void send(PeerId to, BytesView bytes) = 0;
    // Nothing larger is handed to it. At least 1024; 1069 where there are ensemble_keys.
    virtual std::size_t message_bytes_max() const = 0;
};

struct ReplicaOptions {
    PeerId id{1};
    std::vector<PeerId> voters{PeerId{1}};  // the same in all. Who is not among them observes: it
                                            // follows and serves as the others do, and never counts
    std::uint64_t ensemble = 0;             // the ensemble's name; strangers' messages are dropped
    std::uint64_t entropy = 0;              // random, another at each start; 0 only if standalone
    bool may_found = true;                  // false: it only joins an ensemble that there is
    // None: whoever can send as a replica is believed. Else one or two, each of 32 bytes that are
    // random and secret, the same in all replicas. The first one seals what is sent, each opens:
    // so that a key is changed by {old, new} everywhere, then {new, old}, then {new}.
    std::vector<Bytes> ensemble_keys;
    Timing timing;
    Duration session_timeout_min = milliseconds(200);   // what sessions ask for is brought into
    Duration session_timeout_max = seconds(3600);       // this range
    std::uint32_t clock_drift_permille = 50;  // how far two clocks' rates may be apart, at most
    std::uint32_t snapshot_every_entries = 10000;       // a snapshot is begun after so many, or
    std::uint64_t snapshot_every_bytes = 64 * 1024 * 1024;  // after so many bytes of the log
    std::uint32_t log_entries_kept = 1000;  // before a snapshot, for learners a little behind
    // Of the newest changes so many bytes are kept in memory, for subscribers, and one however
    // large. 0: none, and nobody can subscribe; a write is by some percent quicker.
    std::uint32_t change_bytes_kept = 0;
    Limits limits;
    // Who is never refused: a digest_id. Empty: nobody. The password is in no log and no message.
    Bytes super_digest;
    // Schemes of the program's own, and what tells from a credential the id, or RETURNS false.
    // Asked where the credential is given, and nowhere else; it calls nothing of the replica's.
    std::vector<Bytes> schemes;
    Callback<bool(BytesView scheme, BytesView credential, Bytes& id)> judge_credential;
};

struct SessionOptions {
    Duration timeout = seconds(10);
    // Zeros: drawn from the replica's chance, which guards against mistakes, not against guessing.
    SessionPassword password{};
    bool is_local = false;  // it is at this replica alone, until its first write: see Session::open
};

struct Created {
    Bytes path;  // the final one: a sequential node's has its number
    Stat stat;   // stat.czxid is the zxid of the create
    bool is_new = true;  // create_or_set: it was not there before
};

struct Data {
    Bytes bytes;
    Stat stat;
    Zxid zxid;   // of the state that was read
    bool is_null = false;  // and not only empty: see null_data
};

struct Children {
    std::vector<Bytes> names;  // in the order of their bytes
    Stat stat;
    Zxid zxid;
    bool more = false;         // there are more after names.back()
};

struct NodeAcl {
    Acl acl;
    Stat stat;
};

// Which of the children. However many there are, a page costs what is on it, and a logarithm.
struct Page {
    Bytes after;                   // names after this one; "" from the first
    std::size_t limit = SIZE_MAX;  // at most Limits::list_max count
    Bytes prefix{};                // names that begin with this
};

// What to read. A path is lent until it has been asked for.
struct Query {
    enum class Kind : std::uint8_t {
        exists, get, children, list, ephemerals, descendants, acl,
        identities  // whoami's alone
    };
    static Query exists(BytesView path) { return {Kind::exists, path, {}}; }
    static Query get(BytesView path) { return {Kind::get, path, {}}; }
    static Query children(BytesView path, Page page = {}) {
        return {Kind::children, path, std::move(page)};
    }
    // The children with their data and Stat. One that may not be read is there without its data.
    static Query list(BytesView path, Page page = {}) {
        return {Kind::list, path, std::move(page)};
    }
    // The paths of the session's ephemeral nodes that begin so, in the order of their bytes; of a
    // page after and limit count.
    static Query ephemerals(BytesView prefix = "/", Page page = {}) {
        return {Kind::ephemerals, prefix, std::move(page)};
    }
    // How many nodes there are below the path, at any depth. They are walked through, all in one
    // go, so that over Limits::list_max it is too_large; but those below "/" are known.
    static Query descendants(BytesView path) { return {Kind::descendants, path, {}}; }
    static Query acl(BytesView path) { return {Kind::acl, path, {}}; }  // see Session::get_acl
    Kind kind = Kind::exists;
    BytesView path;
    Page page;
};

struct Child {
    Bytes name;
    Bytes bytes;
    Stat stat;
    bool is_null = false;  // and not only empty
    Errc error = Errc::ok;  // no_auth: it may not be read, so that there are no bytes
};

// What was found. Where there is an error, that and the zxid alone.
struct Found {
    Found();
    Found(const Found& other) = default;
    Found(Found&& other) noexcept;
    Found& operator=(const Found& other) = default;
    Found& operator=(Found&& other) noexcept;
    ~Found();

    Errc error = Errc::ok;
    Zxid zxid;                 // of the state that was read
    Stat stat;                 // of the node; none for ephemerals
    Bytes bytes;               // get
    bool is_null = false;      // get: and not only empty
    std::vector<Bytes> names;  // children; ephemerals: paths
    std::vector<Child> nodes;  // list
    bool more = false;         // there are more after the last of names or nodes
    std::uint64_t count = 0;   // descendants
    Acl acl;                   // acl
};

// What several queries have found at one moment.
struct MultiRead {
    Zxid zxid;
    std::vector<Found> parts;  // as asked for, each with its own error
};

// For a read that must see every write that had ended, anywhere, when it was asked for.
constexpr Zxid newest{UINT64_MAX};

// What became of a multi. The error is that of the part that failed: then no part took effect.
struct [[nodiscard]] Multi {
    Errc error = Errc::ok;
    std::vector<Part> parts;  // as asked for; none where it was refused, or its session has ended
    explicit operator bool() const { return error == Errc::ok; }
};

// How a request ends. Called once for each, inside poll, never inside the call that asked, and not
// at all after the replica is destroyed. May call anything but poll, and must not destroy the
// replica.
using OnOpened = Callback<void(Result<SessionId>)>;
using OnCreated = Callback<void(Result<Created>)>;
using OnStat = Callback<void(Result<Stat>)>;
using OnData = Callback<void(Result<Data>)>;
using OnChildren = Callback<void(Result<Children>)>;
using OnDone = Callback<void(Result<void>)>;
using OnMulti = Callback<void(const Multi&)>;
using OnFound = Callback<void(Result<Found>)>;
using OnMultiRead = Callback<void(Result<MultiRead>)>;
using OnAcl = Callback<void(Result<NodeAcl>)>;

// One of these, or none.
class Completion {
public:
    enum class Kind : std::uint8_t {
        none, opened, created, stat, data, children, done, multi, found, multi_read, acl
    };
    Completion() = default;
    Completion(OnOpened done) : Completion(Kind::opened, std::move(done)) {}
    Completion(OnCreated done) : Completion(Kind::created, std::move(done)) {}
    Completion(OnStat done) : Completion(Kind::stat, std::move(done)) {}
    Completion(OnData done) : Completion(Kind::data, std::move(done)) {}
    Completion(OnChildren done) : Completion(Kind::children, std::move(done)) {}
    Completion(OnDone done) : Completion(Kind::done, std::move(done)) {}
    Completion(OnMulti done) : Completion(Kind::multi, std::move(done)) {}
    Completion(OnFound done) : Completion(Kind::found, std::move(done)) {}
    Completion(OnMultiRead done) : Completion(Kind::multi_read, std::move(done)) {}
    Completion(OnAcl done) : Completion(Kind::acl, std::move(done)) {}
    Completion(const Completion& other) = default;
    Completion(Completion&& other) noexcept { *this = std::move(other); }
    Completion& operator=(const Completion& other) = default;
    Completion& operator=(Completion&& other) noexcept;  // the other is none then
    ~Completion() = default;

    Kind kind() const { return kind_; }
    // REQUIRES that it is of the kind that takes such a result.
    template <class T>
    void operator()(Result<T> result) const {
        callback_.call<void, Result<T>>(std::move(result));
    }
    void operator()(const Multi& result) const { callback_.call<void, const Multi&>(result); }

private:
    Completion(Kind kind, detail::AnyCallback&& callback)
        : callback_(std::move(callback)), kind_(callback_ ? kind : Kind::none) {}
    detail::AnyCallback callback_;
    Kind kind_ = Kind::none;
};

enum class SessionState : std::uint8_t {
    connected = 0,  // its replica serves: writes go through
    suspended = 1,  // its replica has no leader: writes wait, reads may be old, it may expire
    expired = 2,    // it is gone and its ephemerals with it; also what nobody knows any more
    closed = 3,     // by its owner; only listeners are told this
    moved = 4,      // it is attached elsewhere: it lives on, and is over here
};
const char* name(SessionState state);
using OnState = Callback<void(SessionState)>;

// A part of a multi. Path and data are lent until it has been asked for.
struct Op {
    static Op create(BytesView path, BytesView data, CreateMode mode = CreateMode::persistent,
                     Duration ttl = {}, Acl acl = {}) {
        return {OpCode::create, path, data, mode, any_version, ttl, std::move(acl)};
    }
    static Op set(BytesView path, BytesView data, std::int32_t version = any_version) {
        return {OpCode::set, path, data, CreateMode::persistent, version, {}, {}};
    }
    static Op remove(BytesView path, std::int32_t version = any_version) {
        return {OpCode::remove, path, {}, CreateMode::persistent, version, {}, {}};
    }
    // That there is such a node, and of this version. (Some systems have a macro of that name.)
    static Op(check)(BytesView path, std::int32_t version = any_version) {
        return {OpCode::check, path, {}, CreateMode::persistent, version, {}, {}};
    }
    static Op set_acl(BytesView path, Acl acl, std::int32_t aversion = any_version) {
        return {OpCode::set_acl, path, {}, CreateMode::persistent, aversion, {}, std::move(acl)};
    }
    // Conditions. no_node, but of one that wants none: node_exists where there is one. Where it is
    // another than asked for, condition_failed. Its Part has the Stat.
    static Op exists(BytesView path) { return (check)(path); }
    static Op absent(BytesView path);
    static Op has_czxid(BytesView path, Zxid czxid);       // it is that very node
    static Op has_owner(BytesView path, SessionId owner);  // whose ephemeral it is; 0: of nobody
    static Op has_data(BytesView path, BytesView data);
    static Op has_children(BytesView path, std::uint64_t count);
    // See Session, and for guards Session::guarded_by.
    static Op create_or_set(BytesView path, BytesView data,
                            CreateMode mode = CreateMode::persistent, Duration ttl = {});
    static Op create_with_parents(BytesView path, BytesView data,
                                  CreateMode mode = CreateMode::persistent,
                                  CreateMode parents = CreateMode::persistent, Duration ttl = {});
    static Op take_over(BytesView path, BytesView data, SessionId earlier,
                        const SessionPassword& password);
    static Op remove_all(BytesView path, std::int32_t version = any_version);  // of the top
    static Op guard(BytesView path, Zxid czxid);
    OpCode code = OpCode::check;
    BytesView path;
    BytesView data;
    CreateMode mode = CreateMode::persistent;
    std::int32_t version = any_version;
    Duration ttl;  // see Request
    Acl acl;       // of create: empty means open to all
    CreateMode parents = CreateMode::persistent;  // of create_with_parents
    Condition condition{};     // of check_that
    std::uint64_t number = 0;  // that it compares; a guard's czxid; whom take_over takes it from
    SessionPassword password{};  // of take_over
};

// Whoever has the session here: its count of holders is not looked at. See next_holding.
inline constexpr std::uint64_t any_holding = UINT64_MAX;

struct Request {
    enum class Kind : std::uint8_t {
        create, remove, set, exists, get, children, sync, close, multi, add_watch, remove_watches,
        read, set_acl, get_acl, add_auth, whoami, watch_since
    };
    Kind kind = Kind::get;
    BytesView path;    // of add_auth the scheme
    BytesView data;    // of add_auth the credential
    CreateMode mode = CreateMode::persistent;
    Duration ttl;      // of a mode that has one, in whole ms: 1 ms to ttl_ms_max
    std::int32_t version = any_version;
    Acl acl;           // of create: empty means open to all
    Page page;
    std::vector<Op> parts;
    std::size_t guards = 0;      // of the parts, in front, that the answer does not show
    std::vector<Query> queries;  // of read; one where it is answered with what was Found
    Zxid least;        // of exists, get, children, read and watch_since: no state before it; or
                       // `newest`
    Zxid since;        // of watch_since: how much the watcher has seen, and
    Watched watched = Watched::data;  // of what
    std::uint64_t holding = any_holding;  // whose it is: the session's holder of that count
    std::size_t root_bytes = 0;  // so many at the front of each path its answer does not show
    WatcherType watcher_type = WatcherType::any;
    // Of exists, get and children, where it may be empty, and of add_watch and watch_since.
    Watcher watcher;
    Completion done;   // of the kind's type, or empty; of a multi also of its last part's
};

// A write that has left for the leader, and of which nothing is known here.
struct Unresolved {
    SessionId session;
    std::uint64_t cxid = 0;  // as its transaction has it, if there is one
    OpCode op = OpCode::create;
    Bytes path;              // of a multi, a close and add_auth: empty
};

// What it did and what it dropped, since it was made.
struct ReplicaCounters {
    std::uint64_t messages_received = 0;
    std::uint64_t messages_sent = 0;
    std::uint64_t bytes_sent = 0;
    std::uint64_t dropped_corrupt = 0;   // does not decode
    std::uint64_t dropped_foreign = 0;   // another ensemble, another receiver, or of nobody's id
    std::uint64_t dropped_stale = 0;     // another epoch, role or attempt
    std::uint64_t dropped_overflow = 0;  // more came between two polls than inbox_bytes_max
    std::uint64_t dropped_unsealed = 0;  // with no seal, or none of this ensemble's keys
    std::uint64_t dropped_replayed = 0;  // sealed for, or by, another life; or for a second time
    std::uint64_t elections = 0;
    std::uint64_t applied = 0;
    std::uint64_t over_quota = 0;  // creates and sets among these that passed a soft limit
    std::uint64_t snapshots_taken = 0;
    std::uint64_t snapshots_given_up = 0;  // no room for it, or it did not read back as written
    std::uint64_t snapshots_installed = 0;
    std::uint64_t requests_refused = 0;  // before they were numbered
    std::uint64_t requests_repeated = 0;
    std::uint64_t sessions_upgraded = 0;  // that were local
    std::uint64_t requests = 0;          // of sessions, openings and attachings included
    std::uint64_t answers = 0;           // callbacks that have run: results, events, states, timers
    std::uint64_t events = 0;
    std::uint64_t polls = 0;
    // Of polls that came more than half of Timing::silence after the one before: the loop is slow,
    // or a storage whose flush blocks it.
    std::uint64_t polls_late = 0;
    std::uint64_t flushes = 0;           // that had something to make durable
    std::uint64_t flushes_slow = 0;      // durable as late as that: the disk is too slow
    std::uint64_t calls = 0;             // from outside, that may have moved next_deadline()
};

struct ReplicaStatus {
    Role role = Role::looking;
    bool serving = false;        // an established leader, or in step with one
    PeerId leader;               // 0 while there is none
    std::uint32_t epoch = 0;     // current, durable
    std::uint32_t accepted_epoch = 0;
    Zxid last;                   // in the log
    Zxid durable;
    Zxid committed;
    Zxid applied;
    std::uint64_t digest = 0;    // of the state at applied
    std::size_t nodes = 0;
    std::size_t observers = 0;   // that it has as the leader
    std::size_t sessions = 0;    // of the ensemble's
    std::size_t local_sessions = 0;  // here
    std::size_t watches = 0;
    // In the time of polls, so that where flush blocks it is the gap that grows, and the flush
    // seems to take none.
    Duration flush_lag;          // for so long something has been flushed that is not durable
    Duration flush_longest;      // the longest that there was, the one of now included
    Duration poll_gap_longest;   // between two polls
    std::uint64_t storage = 0;   // its storage's id
    bool admitted = false;       // that counts, as far as is applied here
    bool full = false;           // writes that grow, or a leader's snapshot, wait for space
    const char* reason = "";     // why it failed, or left its last role
    const char* damage = "";     // what was damaged in the storage, which has started over
};

// A number of a replica's, for what collects such. Where ZooKeeper's mntr has it, it has its name.
struct Metric {
    enum class Kind : std::uint8_t { gauge, counter };
    const char* name;  // of a-z and '_'; stable
    const char* help;  // what it counts; both live for ever
    Kind kind;
    std::uint64_t value;
};

// What an operator may want in a log. Numbers are stable: a new kind of line gets a new one. What
// may come in a flood - dropped messages, slow flushes, late polls, soft quotas - is one line for
// the first, and then at most one in log_repeat for all since.
enum class LogCode : std::uint16_t {
    looks = 101,            // it has no leader, and why not
    leads = 102,            // it tries to: it has won an election
    follows = 103,
    observes = 104,
    established = 105,      // as the leader, of which epoch
    in_step = 106,          // with its leader: it serves
    not_established = 107,  // it gives up before it was
    failed = 108,           // it does nothing any more, and why not
    peer_in_step = 201,     // said by the leader
    peer_silent = 202,      // or behind: it is not in step any more
    observers_changed = 203,  // how many the leader has
    peer_refused = 204,     // a life of one, with proof
    admits = 205,           // a storage is put into the table of voters, or taken out
    admitted = 206,         // its own storage counts
    snapshot_taken = 301,
    snapshot_given_up = 302,
    snapshot_installed = 303,  // a leader's
    storage_full = 401,
    storage_has_room = 402,
    storage_damaged = 403,  // it has started over
    flush_slow = 404,
    dropped_corrupt = 501,  // these are counters of the same names
    dropped_foreign = 502,
    dropped_overflow = 503,
    dropped_unsealed = 504,
    dropped_replayed = 505,
    poll_late = 601,
    over_quota = 701,
};

enum class LogLevel : std::uint8_t { info = 1, warning = 2, error = 3 };
const char* name(LogLevel level);

struct LogLine {
    LogCode code;
    LogLevel level;
    Time at;          // of the poll
    BytesView text;   // one line, of ASCII; lent
};

constexpr Duration log_repeat = seconds(60);

// Sees what happens inside: for logs, tests, simulation and tracing. Only looks. Called inside
// poll; but of a replica whose options or storage are no good in its constructor.
class ReplicaObserver {
public:
    virtual ~ReplicaObserver() = default;
    virtual void on_log(PeerId, const LogLine&) {}
    virtual void on_role(PeerId, Role, PeerId /*leader*/, std::uint32_t /*epoch*/) {}
    virtual void on_established(PeerId, std::uint32_t /*epoch*/, Zxid /*initial*/) {}
    virtual void on_applied(PeerId, const Txn&, const Outcome* /*null: void*/, std::uint64_t) {}
    virtual void on_installed(PeerId, Zxid, std::uint64_t /*digest*/) {}
};

class Replica final : private EventSink {
public:
    static constexpr std::size_t inbox_bytes_max = 16 * 1024 * 1024;
    static constexpr std::size_t unresolved_max = 4096;  // of sessions that have ended, together

    // Keeps references to storage, transport and observer, which must outlive it. Opens the
    // storage; status() says how that went, and whether the options are sound. Without a transport
    // it is standalone, and the options must name it alone.
    Replica(const ReplicaOptions& options, Storage& storage, Transport& transport,
            ReplicaObserver* observer = nullptr);
    Replica(const ReplicaOptions& options, Storage& storage);
    ~Replica();
    Replica(const Replica&) = delete;
    Replica& operator=(const Replica&) = delete;

    // A message has come from a peer. Takes a copy; it is looked at in the next poll. May be called
    // inside poll. Everything here runs on one thread at a time.
    void receive(PeerId from, BytesView bytes);
    // One step. now is monotonic; an earlier one counts as the latest. wall_ms is Unix time, for
    // ctime, mtime and the age of nodes with a ttl alone; 0 = take it from now. A poll within poll
    // does nothing.
    void poll(Time now, std::int64_t wall_ms = 0);
    // When poll must be called at the latest. Earlier when a message has come, or the storage's
    // durable() has moved. In the past = at once.
    Time next_deadline() const;
    // A hint that a peer is gone, as a TCP reset is one. A wrong hint costs time, never safety.
    void forget(PeerId peer);

    bool is_polling() const { return in_poll_; }
    PeerId id() const { return options_.id; }
    Time now() const { return now_; }             // of the latest poll
    const Tree& tree() const { return machine_->tree(); }  // local reads; changes in poll only
    const Machine& machine() const { return *machine_; }
    const Log& log() const { return log_; }
    ReplicaStatus status() const;
    ReplicaCounters counters() const { return counters_; }
    const LeaderCounters& leader_counters() const { return leader_.counters(); }
    // Three faces of the state, each at a cost that no tree and no number of sessions makes larger.
    // Lines for a person, in a debugger or a log.
    Bytes describe() const;
    // All of it as one object of JSON, in ASCII, whatever bytes a reason has. Keys are stable:
    // others may come. What has 64 bits and is no count is a string, in hex, without 0x.
    Bytes state_json() const;
    // All numbers, one after the other, in the same order each time.
    void visit_metrics(const Callback<void(const Metric&)>& visit) const;
    // Who watches what, here: the first rows after that one, so many at the most, and no more than
    // Limits::list_max; none where that was the last. By path it looks at all watchers each time.
    // What ZooKeeper's dump shows is in machine().sessions(): each has its ephemeral nodes.
    std::vector<WatchRow> list_watches(WatchOrder order, const WatchRow& after = {},
                                       std::size_t limit = SIZE_MAX) const;
    WatchCounts count_watches() const { return watches_.counts(); }

    // Sessions; chapter 13 is the comfortable face of these. Errors come through the callbacks:
    // replica_failed, session_expired, session_moved, outcome_unknown (R13), too_large, too_many,
    // bad_arguments, and the operation's own.
    void open_session(const SessionOptions& options, OnOpened done);
    // Takes a session over that was opened or attached before, here or elsewhere: see
    // Session::attach.
    void attach_session(SessionId session, const SessionPassword& password, OnOpened done);
    // Of a session as one holder has it: where another has it, even here, it has moved (R10).
    SessionPassword session_password(SessionId session,  // zeros if it is not held here
                                     std::uint64_t holding = any_holding) const;
    void submit(SessionId session, Request&& request);
    SessionState session_state(SessionId session, std::uint64_t holding = any_holding) const;
    void on_session_state(SessionId session, OnState listener,  // one more; told in order
                          std::uint64_t holding = any_holding);
    Duration session_timeout(SessionId session) const;
    bool is_local_session(SessionId session, std::uint64_t holding = any_holding) const;
    // Until when the session certainly lives, on the clock of poll: nobody else can have seen its
    // ephemerals go before. Time{} when that is not known. Holds while clock rates differ by at
    // most clock_drift_permille, and but for what its next holder does: who attaches a session may
    // close it, before it is known here that it has moved.
    Time certain_until(SessionId session, std::uint64_t holding = any_holding) const;
    // Calls f once, in the poll at or after that time.
    void at(Time time, Callback<void()> call);
    void subscribe(detail::Subscriber& subscriber);  // see Session::subscribe
    // Within a callback that ends a request: the zxid of the state that its answer is of, also
    // where that is an error; of a write that was executed its own. No event of it or before it is
    // still to come.
    Zxid answer_zxid() const { return answer_zxid_; }
    // In the order in which they were asked for; see Session::unresolved.
    std::vector<Unresolved> unresolved(SessionId session,
                                       std::uint64_t holding = any_holding) const;
    void audit() const;   // asserts what holds between steps; cost as the state

private:
    struct Pending {
        Request::Kind kind = Request::Kind::get;
        std::uint64_t cxid = 0;       // of a write; a sync's sequence
        OpCode op = OpCode::create;
        Bytes body;                   // of a write; a read's path
        Page page;
        WatcherType watcher_type = WatcherType::any;
        Watcher watcher;
        Completion done;
        Errc error = Errc::ok;        // refused already: only its turn has to come
        std::size_t root_bytes = 0;
        std::size_t guards = 0;
        bool awaits_sync = false;     // a sync, or a read of `newest`, that has no answer yet
        Zxid least;                   // it waits until this is applied; R9
        Zxid since;
        Watched watched = Watched::data;
    };
    struct HeldSession {
        std::uint32_t timeout_ms = 0;
        std::uint64_t next_cxid = 1;
        std::uint64_t confirmed = 0;
        std::size_t sent = 0;         // of pending, forwarded already
        std::uint64_t sent_cxid = 0;  // the newest that ever was; R13
        bool is_blocked = false;      // the last one sent waits: nothing follows it yet
        bool is_listed = false;       // in unsent_
        std::uint64_t stalled_at = 0;  // the first pending one when last looked
        detail::Ring<Pending> pending;
        SessionState state = SessionState::connected;
        detail::Ring<OnState> listeners;
        Time opened_at;               // asked for
        Time attached_at;             // known here
        bool closing = false;
        bool is_local = false;        // R14
        bool is_busy = false;         // a local one with something pending
        bool is_upgraded = false;     // it is about to be: an opening is under way
        SessionPassword password;     // of a local one: the others' are in their records
    };
    struct Opening {
        std::uint64_t nonce = 0;
        std::uint32_t timeout_ms = 0;
        SessionPassword password;
        SessionId session;            // to be attached; 0: to be opened
        std::uint64_t cxid = 0;       // where its new holder begins; 0: not known yet
        std::uint64_t sync = 0;       // the sequence of the sync after which that can be known
        bool is_synced = false;
        Zxid sync_zxid;
        OnOpened done;
        Time asked_at;
        bool sent = false;
        bool is_upgrade = false;      // of the local session whose id is the nonce
        bool was_sent = false;
    };
    struct Ready : Found {            // a callback whose time has come
        bool is_brief = false;        // error, zxid, stat, done, text and root_bytes are all of it
        Completion done;
        Bytes text;                   // path
        SessionId session;
        std::vector<Part> parts;
        std::vector<Found> found;
        std::size_t root_bytes = 0;
        std::size_t read_bytes = 0;   // what it holds: of a read, and of a write
        std::size_t write_bytes = 0;
        detail::Shared<const Watcher> watcher;
        EventType event = EventType::none;
        OnState on_state;
        SessionState state = SessionState::connected;
        Callback<void()> call;
    };
    struct Touch {
        std::uint64_t number = 0;
        Time sent_at;
    };
    struct Timer {
        Time at;
        std::uint64_t order = 0;
        Callback<void()> call;
    };

    void open();
    void record_changes();
    Errc load_snapshot();
    bool is_admitted(const VoterTable& table) const;
    bool is_replaced(const VoterTable& table, Zxid zxid) const;
    void fail(const char* reason);
    void fail(Errc error);
    struct Logged;
    void tell_role(PeerId leader);
    void log_line(LogCode code, LogLevel level, BytesView text);
    void log_count(LogCode code, std::size_t place, std::uint64_t count, const char* what);
    void log_news();
    void log_all();
    void log_peers();
    void log_storage();
    void log_established();
    void visit_gauges(const Callback<void(const Metric&)>& visit) const;
    void visit_counters(const Callback<void(const Metric&)>& visit) const;
    Bytes describe_role() const;
    void take_inbox();
    bool unseal(PeerId from, BytesView& bytes);
    void deliver(PeerId to, BytesView bytes);
    static std::size_t message_bytes_max(const ReplicaOptions& options, const Transport& transport);
    void dispatch(const Message& message);
    bool step();
    void flush();
    void drive_roles();
    bool is_voter() const { return voters_.contains(options_.id); }
    bool is_learner() const { return role_ == Role::following || role_ == Role::observing; }
    bool is_alone() const { return voters_.size() == 1 && is_voter(); }
    void answer_notification(const Message& message);
    void step_aside();
    void look(const char* reason);
    void lead();
    void follow(PeerId leader);
    void lead_step();
    void follow_step();
    void after_flush();
    bool can_send_requests() const;
    void send_requests();
    void send_session(SessionId id, HeldSession& session);
    void send_request(const Txn& request);
    void flush_requests();
    void list_unsent(SessionId id, HeldSession& session);
    static bool is_held(const HeldSession& session, std::uint64_t holding) {
        return holding == any_holding || session.next_cxid >> cxid_bits == holding;
    }
    HeldSession* find_here(SessionId id);
    const HeldSession* find_held(SessionId id, std::uint64_t holding) const;
    void open_local(const SessionOptions& options, Completion&& done);
    void upgrade(SessionId id, HeldSession& session);
    void end_upgrade(std::size_t place, Errc error);
    void make_busy(SessionId id, HeldSession& session);
    void settle_local_sessions();
    void repeat_requests();
    void send_all();
    void load_chunk();
    void put_off_snapshot();
    void drop_incoming();
    void retire_machine(detail::Owned<Machine> machine);
    void install_snapshot();
    void apply_committed();
    void apply(const Txn& txn);
    void complete(const Txn& txn, const Outcome* outcome, std::uint64_t executed);
    void send_opening(Opening& opening);
    void complete_open(std::uint64_t nonce, SessionId id, Errc error);
    void end_opening(std::size_t place, SessionId id, Errc error);
    void judge_attaches(SessionId of);
    Errc judge_attach(Opening& opening) const;
    void catch_up_sessions();
    void compare_digest();
    void drain(SessionId id, HeldSession& session);
    bool drain_one(SessionId id, HeldSession& session, Pending& pending);
    bool drain_write(SessionId id, HeldSession& session, Pending& pending);
    void drain_all();
    static std::size_t answer_bytes_max(const Limits& limits);
    void hold_bytes(Ready& ready, std::size_t& held) const;
    bool has_read_due(const HeldSession& session) const;
    bool must_read_first(const Txn& txn) const;
    bool must_read_before_jump() const;
    void execute_read(SessionId id, Pending& pending);
    struct Look;
    struct Room;
    static Look look_of(const Pending& pending);
    Errc judge_query(const Query& query) const;
    void encode_queries(const std::vector<Query>& queries, Bytes& body) const;
    void execute_queries(SessionId id, BytesView body, Ready& ready) const;
    void look_up(SessionId id, const Look& look, Room& room, Found& found) const;
    void look_at_node(SessionId id, const Look& look, Room& room, Found& found) const;
    void show_acl(SessionId id, BytesView acl, Room& room, Found& found) const;
    void list_identities(SessionId id, Found& found) const;
    void list_nodes(SessionId id, const Look& look, Room& room, Found& found) const;
    void list_ephemerals(SessionId id, const Look& look, Room& room, Found& found) const;
    void change_watches(SessionId id, Pending& pending);
    void finish(Pending& pending, const Outcome& outcome);
    static void unwrap(std::size_t guards, Ready& ready);
    void end_session(SessionId id, SessionState state, std::uint64_t executed);
    void end_write(SessionId id, const HeldSession& session, Pending& pending,
                   std::uint64_t executed, Errc error);
    static Unresolved unresolved_of(SessionId id, const Pending& pending);
    void refuse(Completion&& done, Errc error);
    Errc prepare(Request& request, Pending& pending);
    Errc prepare_auth(const Request& request, Pending& pending) const;
    Errc judge_schemes(const Acl& acl) const;
    bool has_scheme(BytesView scheme) const;
    Errc judge_path(OpCode op, BytesView path, CreateMode mode) const;
    bool has_too_many_watches(SessionId id) const;
    static OpCode encode_write(const Request& request, Bytes& body);
    static std::uint64_t work_of(const Txn& txn);
    bool is_snapshot_due() const;
    bool is_fetch_waited_for() const;
    std::uint64_t snapshot_patience() const;
    void work_on_snapshot();
    std::size_t write_snapshot_slice();
    std::size_t check_snapshot_slice();
    void end_snapshot();
    void give_up_snapshot(Errc error);
    void send_pong();
    void renew_lease();
    void take_next_lease();
    void touch_own_sessions();
    void take_syncs();
    void tell_state(const HeldSession& session);
    void tell_states();
    void tell_subscribers();
    void run_timers();
    void take_ready();
    void run_callbacks();
    static void cut_root(Ready& ready);
    void end_request(Ready& ready);
    void call(Ready& ready);
    void on_event(SessionId session, detail::Shared<const Watcher> watcher, EventType type,
                  BytesView path, Zxid zxid, BytesView acl) override;
    bool is_serving() const;
    bool is_full() const;
    Vote own_vote() const;
    std::size_t request_bytes_max() const;
    std::size_t requests_max(const Request& request) const;
    std::uint32_t clamp_timeout_ms(Duration timeout) const;
    Ready& push_ready();

    ReplicaOptions options_;
    const char* const refused_;        // why the options are no good, or null
    Transport& transport_;
    ReplicaObserver* observer_;
    Voters voters_;
    Rng rng_;
    std::uint64_t nonce_;
    const std::size_t message_bytes_max_;  // the transport's, without what a seal takes
    detail::Owned<Seals> seals_;           // where the ensemble has keys
    Log log_;
    detail::Owned<Machine> machine_;
    Watches watches_;
    detail::Owned<detail::History> history_;
    Election election_;
    Leader leader_;
    Learner learner_;
    Outbox outbox_;
    Role role_ = Role::looking;
    const char* reason_ = "";
    const char* damage_ = "";
    bool was_admitted_ = false;        // the own storage has counted (R7)
    std::uint32_t aside_ = 0;          // times that it has stepped aside, since it served
    Time aside_until_{INT64_MIN / 4};
    Time now_;
    Duration poll_gap_longest_;
    Duration flush_longest_;           // of those that have ended
    std::int64_t wall_ms_ = 0;
    bool started_ = false;
    bool in_poll_ = false;
    bool is_ending_ = false;           // it is being destroyed
    Bytes inbox_;                      // u32 size and bytes, one after the other
    Bytes inbox_read_;
    detail::Numbered<SessionId, HeldSession> sessions_;  // but for:
    detail::Numbered<SessionId, HeldSession> idle_;      // local ones with nothing pending
    std::size_t busy_ = 0;             // local ones of sessions_
    std::vector<SessionId> settling_;  // of those some that may be idle now, or over
    detail::Ring<Opening> openings_;
    detail::Ring<Unresolved> unresolved_;  // of sessions that have ended; R13
    std::vector<SessionId> unsent_;    // with requests that have not been sent to the leader
    std::vector<SessionId> sending_;
    Time repeat_at_;
    Zxid committed_;                   // never falls
    bool applies_later_ = false;       // what is committed waits for the next poll
    std::uint64_t work_left_ = 0;      // of what this poll may apply
    Leader::Phase leader_phase_ = Leader::Phase::idle;
    std::uint64_t pings_ = 0;
    std::uint64_t sync_sequence_ = 0;
    Zxid awaited_ = newest;            // the first zxid that a read, or a sync, waits for; R9
    Bytes requests_;                   // the body of the next request message
    detail::Ring<Ready> ready_;
    Ready current_;                    // the callback that runs
    const std::size_t answer_bytes_max_;
    std::size_t read_bytes_ = 0;       // of what is ready; R12
    std::size_t write_bytes_ = 0;
    bool reads_later_ = false;         // a read whose turn has come waits for the callbacks
    SessionId drained_;                // the last session that was looked at when it came to that
    detail::Agenda<Timer> timers_;
    std::uint64_t touch_ = 0;
    detail::Ring<Touch> touches_;      // sent and not yet confirmed
    Time lease_from_{INT64_MIN / 4};
    Time lease_due_{INT64_MIN / 4};    // the next one, when this is applied:
    Zxid lease_due_at_;
    bool was_serving_ = false;
    Time started_at_;                  // the first poll
    Time role_since_;
    std::size_t requests_waiting_ = 0;  // pending, of all sessions
    detail::Owned<Logged> logged_;     // where somebody observes
    enum class SnapshotPhase : std::uint8_t { none, writing, checking, ending };
    SnapshotPhase snapshot_phase_ = SnapshotPhase::none;
    LogPosition snapshot_position_;    // of the one that is being written
    StateCheck snapshot_check_;
    detail::Owned<Machine> incoming_;       // what has arrived of a leader's snapshot
    detail::Owned<Machine> retired_;        // what is freed, poll by poll
    std::uint64_t incoming_bytes_ = 0;
    bool snapshot_may_wait_ = false;   // for a learner that fetches the one before
    std::uint64_t snapshot_written_ = 0;
    std::uint64_t snapshot_checked_ = 0;
    std::uint64_t entries_since_snapshot_ = 0;
    std::uint64_t bytes_since_snapshot_ = 0;
    Bytes scratch_;
    Zxid answer_zxid_;
    ReplicaCounters counters_;
};

// =================================================================================================
// Part One, chapter 13: Session
// =================================================================================================
// Purpose    The client's face: asynchronous, the callback last; and a blocking face over whatever
//            can be pumped.
// Invariants C1 A call takes copies and returns at once. Its callback comes once, later, in poll.
//            C2 Answers come in the order of the calls, but for refusals by a bound, or after the
//            end, which come at once; and an event before the first answer that shows its change.
//            C3 A state is told to each listener once, in the order in which they were added.
//            C4 A Sync that gave up leaves nothing behind that points into its caller's stack.
//            C5 A handle below a path reaches, and hears of, nothing outside; what it says and what
//            it is told are paths as they look from there.
//            C6 A guarded handle asks for no write without all of its guards.
// May touch  Chapter 12.
// Reading    ZooKeeper's programmer's guide, "ZooKeeper Sessions" and "ZooKeeper Watches".

class Session;
using OnSession = Callback<void(Result<Session>)>;

namespace detail {
struct Handle;
}

// A handle to a session: small, to be copied, all copies alike. It owns nothing: the session ends
// by close, or by expiry when its replica can no longer keep it alive. The replica must outlive
// every use of the handle. Everything here is called on the thread that polls the replica, inside
// callbacks or between polls; everything is answered inside poll.
//
// Paths and data are lent for the call; data may be null_data. Callbacks and watchers are owned by
// the replica until they have been called, or until it is destroyed; what they hold may call, as it
// is destroyed, whatever they may. An empty callback is allowed: nobody is told.
//
// A handle may be below a path, and its reads may have a level:
//
//     session.below("/app").create("/a", "", done);       creates /app/a, and done is told "/a"
//     session.linearizable().get("/a", done);             as new as any write that has ended
//     session.at_least(created->stat.czxid).get("/a", done);  of a write that somebody told it of
//
// And its writes may be guarded by a node, a lock's above all: they take effect only while that is
// there, and otherwise are guard_lost and have done nothing:
//
//     grant->guarded(session).set("/door", "open", done);   of a Lock's Grant; or guarded_by
//
// Errors that any request can give: session_expired (also after close), session_moved (attached
// elsewhere, or here by another handle), replica_failed, bad_arguments (the path), too_large,
// too_many. There is no connection_loss: while there is no leader a request waits, is repeated, and
// is executed once (on_state tells of such a time).
//
// A write with any of these has not been executed and never will be. Where the session's end is
// applied here, as it is on every replica that is not far behind, what stands before that in the
// log has been answered with what became of it, and nothing after it has any effect. Two ends leave
// a write in doubt that had left: a snapshot in whose state the session has ended, or moved; and
// the failure of the replica. Such a write alone is told outcome_unknown; see unresolved.
class Session {
public:
    // Opens a session. Errors: too_many, replica_failed; session_moved, where somebody has attached
    // it before it was known here.
    // A local one (SessionOptions::is_local) is there at once, without a leader or a byte in the
    // log, as many as Limits::local_sessions_max. It reads and watches like any other; it is lost
    // with its replica, and until then does not expire; nobody can attach it (session_expired), and
    // it has no certain_until. Its first write of any kind, or add_auth, has it opened for all,
    // with the same id, password and timeout, which it waits for; what is here of it stays. Where
    // the ensemble has too many sessions, the writes asked for by then are too_many, and it goes on
    // as it was. Where its replica was so far behind meanwhile that it cannot know what became of
    // that, it is over; where it is opened all the same, that expires. Closing it while it is local
    // asks nobody.
    static void open(Replica& replica, const SessionOptions& options, OnSession done);
    // Takes over a session that its opener, or who attached it last, has no use for any more: his
    // program has ended, or it is to go on at another replica. It keeps its ephemeral nodes; its
    // watchers do not come along. Where it was, it is over: state moved, also for the handles that
    // are here. What was under way there and has not been executed never will be. Errors:
    // session_expired; auth_failed, where the password is not its; session_moved, where somebody
    // else was quicker; too_many (65,535 times); replica_failed.
    static void attach(Replica& replica, SessionId id, const SessionPassword& password,
                       OnSession done);
    // A handle to one that Replica::open_session has opened. Copy a handle rather than make a
    // second one: next_number counts among copies alone.
    Session(Replica& replica, SessionId id);
    // A copy whose paths are below this one's path: those that it is given, in requests and for
    // recipes, and those that come back, in events too. "/" is the path itself, which need not be
    // there. Below what is no path all is bad_arguments.
    Session below(BytesView path) const;
    // A copy whose reads are of no state before that of the zxid: they wait until this replica has
    // it, and what is asked for later waits behind them. Where it never comes to that: until the
    // session ends; `cancelled` where its owner ends it.
    Session at_least(Zxid zxid) const;
    // A copy whose reads see every write that had ended, anywhere, when they were asked for. Each
    // takes a round of a quorum, as sync does.
    Session linearizable() const { return at_least(newest); }
    // A copy whose writes (not close) take effect only where, as they are executed, that node is
    // there with that czxid. That is judged in the order of the log, by every replica alike, so it
    // needs no clock: once the node has gone nothing takes effect any more, however late it comes,
    // and what does take effect did so before. A handle that is guarded already has one guard more.
    // The path is below this one's. Errors of each write, beside its own: guard_lost.
    Session guarded_by(BytesView path, Zxid czxid) const;

    SessionId id() const { return id_; }
    // What attach wants, beside the id: to be kept where the program finds it again, and nobody
    // else does.
    SessionPassword password() const { return replica_->session_password(id_, holding()); }
    Replica& replica() const { return *replica_; }
    // Once it is over: expired, however it ended, or moved. Listeners hear `closed` where its owner
    // did it.
    SessionState state() const { return replica_->session_state(id_, holding()); }
    Duration timeout() const { return replica_->session_timeout(id_); }
    bool is_local() const { return replica_->is_local_session(id_, holding()); }
    // The writes that may have been executed, or may yet be, and of which nothing is known here: of
    // a session that lives those that have left and have no answer; of one that has ended those
    // that were told outcome_unknown, as long as they are among the newest
    // Replica::unresolved_max. Of a handle below a path those elsewhere are without theirs.
    std::vector<Unresolved> unresolved() const;
    // Until when the session certainly lives; see Replica::certain_until.
    Time certain_until() const { return replica_->certain_until(id_, holding()); }

    // Writes. An answer means that a majority has it and that it is applied here.
    // create: no_node (the parent), node_exists, no_children_for_ephemerals. A sequential mode
    // appends a number of ten digits or more to the path. A container, and a node with a ttl, are
    // removed by the leader, which looks for those that are due every Timing::reap_interval: a
    // container that has had children and has none any more, and one with a ttl that has none and
    // was last set longer ago than that, by the leaders' wall clocks. A create below it can come
    // too late, and then gives no_node. bad_arguments: a ttl with a mode that has none, or none.
    void create(BytesView path, BytesView data, CreateMode mode, OnCreated done) const;
    void create(BytesView path, BytesView data, CreateMode mode, Duration ttl,
                OnCreated done) const;
    void create(BytesView path, BytesView data, OnCreated done) const;  // persistent
    // With an ACL: an empty one is open to all, as is what the others give. invalid_acl: "auth"
    // for a session without identities, a scheme that nobody knows, an id that is none of it.
    void create(BytesView path, BytesView data, CreateMode mode, Duration ttl, const Acl& acl,
                OnCreated done) const;
    // set: no_node, bad_version. RETURNS the new Stat.
    void set(BytesView path, BytesView data, std::int32_t version, OnStat done) const;
    void set(BytesView path, BytesView data, OnStat done) const;  // any version
    // remove: no_node, bad_version, not_empty.
    void remove(BytesView path, std::int32_t version, OnDone done) const;
    void remove(BytesView path, OnDone done) const;               // any version
    // set_acl: invalid_acl, also for an empty one; no_node, bad_version (of the aversion).
    void set_acl(BytesView path, const Acl& acl, std::int32_t aversion, OnStat done) const;
    void set_acl(BytesView path, const Acl& acl, OnStat done) const;  // any version

    // Gives the session one more identity, in turn with its requests; all its handles have it, and
    // whoever attaches it begins with none. Scheme and credential: "digest", "user:password", which
    // is known and accepted whoever it is, and is super_user too where ReplicaOptions say so; "ip"
    // and the client's address, which the program must know, since here it is believed; one of
    // ReplicaOptions::schemes and what its judge takes. auth_failed: another scheme, or that judge
    // says so; the session goes on. too_many: over Limits::identities_per_session_max.
    void add_auth(BytesView scheme, BytesView credential, OnDone done) const;

    // What ZooKeeper's clients do in several writes, each in one step here. All are multis of one
    // part, and parts of others: see Op, which has the ttl, too.
    // create_or_set: creates it where it is not there, and sets its data where it is, whatever its
    // kind; Created says which. Errors of create, but node_exists; bad_arguments: a sequential
    // mode.
    void create_or_set(BytesView path, BytesView data, CreateMode mode, OnCreated done) const;
    void create_or_set(BytesView path, BytesView data, OnCreated done) const;  // persistent
    // create_with_parents: the parents that are missing, too, without data, persistent or
    // containers. Errors of create, but no_node; then none of them is there.
    void create_with_parents(BytesView path, BytesView data, CreateMode mode, CreateMode parents,
                             OnCreated done) const;
    void create_with_parents(BytesView path, BytesView data, OnCreated done) const;
    // remove_all: the node and all below it, or nothing. Watchers hear of children before their
    // parents. no_node; too_large: they are more than Limits::removals_max.
    void remove_all(BytesView path, OnDone done) const;
    // take_over: creates an ephemeral node; where it is there already, of that session, which may
    // be alive still, it is removed first, so that it has another czxid, and whatever that guards
    // is lost. So a program that has been started again need not wait for what its earlier session
    // has left. Whether that lives or has ended meanwhile makes no difference: its nodes have gone
    // with it. Errors of create: node_exists, where it is somebody else's; auth_failed: the node is
    // that session's, and the password is not.
    void take_over(BytesView path, BytesView data, SessionId earlier,
                   const SessionPassword& password, OnCreated done) const;

    // All of it or nothing, in one step: each part sees what those before it have done, and nobody
    // sees them in between. Parts give the errors of those calls; check: no_node, bad_version;
    // other conditions: see Op.
    void multi(std::vector<Op> parts, OnMulti done) const;

    // Where a node's ACL refuses it, everything gives no_auth: create and remove ask the parent's
    // for create and remove, set write, check and the reads below read, get_acl read or admin,
    // set_acl admin. exists alone is free, as in ZooKeeper, and tells the Stat of every node. An
    // ACL is judged when a write is applied, before versions and after the path and no_node.

    // Reads of this replica's state: in turn after this session's writes, perhaps older than what
    // other sessions have written; after sync, no older than the call of sync; or as at_least and
    // linearizable say. All: no_node.
    // A watcher hears of the first change of what was read, once. On an absent node exists sets
    // one (it hears of the create), get and children do not. Watchers end with the session,
    // uncalled.
    void exists(BytesView path, OnStat done) const;
    void exists(BytesView path, Watcher watcher, OnStat done) const;
    void get(BytesView path, OnData done) const;
    void get(BytesView path, Watcher watcher, OnData done) const;
    // The names of the children, without their parent's path, in the order of their bytes.
    void children(BytesView path, OnChildren done) const;
    void children(BytesView path, Watcher watcher, OnChildren done) const;
    void children(BytesView path, const Page& page, OnChildren done) const;
    void children(BytesView path, const Page& page, Watcher watcher, OnChildren done) const;

    // The ACL, and the Stat. Without admin a digest shows as "user:x".
    void get_acl(BytesView path, OnAcl done) const;
    // The session's identities, entries without permissions; of digest the user alone.
    void whoami(OnAcl done) const;

    // What a query asks for; and several at one moment: the answer has one zxid, each part its own
    // error, and Limits bound all of it together. too_large: a part that has no room beside those
    // before it, or descendants that are too many. A page that ends at a bound says that there is
    // more. too_many: parts over Limits::multi_parts_max.
    void read(const Query& query, OnFound done) const;
    void multi_read(std::vector<Query> queries, OnMultiRead done) const;

    // A watcher that stays, from its turn among this session's requests on: it hears of each change
    // of the node, its coming and its going, whether it is there now or not; with
    // persistent_recursive of those of all the nodes below it, too, and never children_changed.
    // What a replica that was far behind has skipped it hears of as one change of each node.
    // bad_arguments also for an empty watcher.
    void add_watch(BytesView path, AddWatchMode mode, Watcher watcher, OnDone done) const;
    // A watcher as of a state that is past, for whoever had one there and has lost it: with its
    // session's move to another replica, above all. It hears at once of what has changed since, and
    // of what is still to come like any other: once, or with `persistent` for good. since is the
    // zxid of the answer that came when the watcher was set, or of the last event that it has
    // heard: then none is lost on the way, nor heard twice. The replica waits until it has that
    // zxid. What came and went again, and what is below, is not told: see subscribe. One that stays
    // may hear of a node that was not there then that it is gone. bad_arguments also for an empty
    // watcher.
    void watch_since(Zxid since, Watched what, BytesView path, Watcher watcher, OnDone done) const;
    // Forgets this session's watchers of that path: those that stay, and one-shot ones. Each hears
    // of it, before the answer. no_watcher where there is none.
    void remove_watches(BytesView path, WatcherType type, OnDone done) const;

    // The changes at a path and below it, from a position on: whoever has read a state goes on from
    // its zxid, so list, and then subscribe from what was found. wake is called when there is
    // something to take, or when it is over, and again when that has been taken and there is more;
    // each is called with the changes themselves, and at last with the reason why no more come.
    // Between streams, and between a stream and answers, there is no order but that of the zxids.
    // Errors, at once, and told: snapshot_needed; too_many, as of watches; api_error, where
    // ReplicaOptions::change_bytes_kept is 0.
    Subscription subscribe(BytesView path, const SubscribeOptions& options,
                           Callback<void()> wake = {}) const;
    Subscription on_changes(BytesView path, const SubscribeOptions& options, OnChange each) const;

    // Brings this replica up to everything that was committed, anywhere, before the call.
    void sync(OnDone done) const;
    // Ends the session after the requests before it; its ephemeral nodes go in the same step.
    void close(OnDone done = {}) const;

    // Adds a listener to the changes of the session's state that are still to come. With an owner,
    // a std::weak_ptr, it is called only while what that points to lives, and forgotten then.
    void on_state(OnState listener) const;
    template <class Owner>
    void on_state(Owner owner, OnState listener) const {
        const auto call = [owner = std::move(owner), listener](const SessionState* state) {
            const auto held = owner.lock();
            if (held && state != nullptr) listener(*state);
            return bool(held);
        };
        if (listener) listen(call);
    }

    // What recipes need beside requests: the time of the latest poll, a call in the poll at or
    // after a time, and a number that no copy of this handle has given before.
    Time now() const { return replica_->now(); }
    void at(Time time, Callback<void()> call) const { replica_->at(time, std::move(call)); }
    std::uint64_t next_number() const;

private:
    Session(Replica& replica, SessionId id, detail::Handle&& handle);
    std::uint64_t holding() const;  // the count of holders before the one whose handle it is
    // Calls it with each state; with null to be told whether there still is somebody to be called.
    void listen(Callback<bool(const SessionState*)> listener) const;
    void ask(Request&& request) const;
    void ask_below(Request&& request) const;
    void ask_guarded(Request&& request) const;
    void ask_part(const Op& part, Completion done) const;
    Subscription subscribe_with(BytesView path, const SubscribeOptions& options,
                                Callback<void()>&& wake, OnChange&& each) const;
    Replica* replica_;
    SessionId id_;
    detail::Shared<detail::Handle> handle_;
};

// Makes things go on a little, and RETURNS whether to go on waiting: Simulation::pump, one turn of
// an event loop with a deadline, or [&] { replica.poll(clock()); return true; } for a standalone
// replica. It may wait for input, and should, rather than spin.
using Pump = Callback<bool()>;

namespace detail {
// What a Sync that waits shares with its callback. When the wait ends, however it ends, there is no
// place for an answer any more (C4).
struct Waiting {
    struct State {
        void* place;
        bool is_answered = false;
    };
    explicit Waiting(void* place);
    ~Waiting() { state->place = nullptr; }
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;
    void pump_until_answered(const Pump& pump) const;
    static void* take(State& state);  // RETURNS where the answer goes, or null
    const Shared<State> state;
};
}  // namespace detail

// The same operations, each waiting for its answer while it pumps. Errors are the operation's own,
// and operation_timeout where the pump gave up: the outcome is then unknown and the request goes
// on, to be executed later, once, or not at all; what comes of it is dropped. And api_error inside
// a callback: the poll that would bring the answer cannot begin. Nothing has been asked then.
class Sync {
public:
    Sync(Session session, Pump pump) : session_(std::move(session)), pump_(std::move(pump)) {}
    static Result<Session> open(Replica& replica, const SessionOptions& options, const Pump& pump);
    static Result<Session> attach(Replica& replica, SessionId id, const SessionPassword& password,
                                  const Pump& pump);

    const Session& session() const { return session_; }
    Sync below(BytesView path) const { return {session_.below(path), pump_}; }
    Sync at_least(Zxid zxid) const { return {session_.at_least(zxid), pump_}; }
    Sync linearizable() const { return at_least(newest); }
    Sync guarded_by(BytesView path, Zxid czxid) const;
    Result<Created> create(BytesView path, BytesView data,
                           CreateMode mode = CreateMode::persistent, Duration ttl = {},
                           const Acl& acl = {}) const;
    Result<Stat> set(BytesView path, BytesView data, std::int32_t version = any_version) const;
    Result<void> remove(BytesView path, std::int32_t version = any_version) const;
    Result<Created> create_or_set(BytesView path, BytesView data,
                                  CreateMode mode = CreateMode::persistent) const;
    Result<Created> create_with_parents(BytesView path, BytesView data,
                                        CreateMode mode = CreateMode::persistent,
                                        CreateMode parents = CreateMode::persistent) const;
    Result<void> remove_all(BytesView path) const;
    Result<Created> take_over(BytesView path, BytesView data, SessionId earlier,
                              const SessionPassword& password) const;
    Result<Stat> set_acl(BytesView path, const Acl& acl,
                         std::int32_t aversion = any_version) const;
    Result<NodeAcl> get_acl(BytesView path) const;
    Result<void> add_auth(BytesView scheme, BytesView credential) const;
    Result<NodeAcl> whoami() const;
    Multi multi(std::vector<Op> parts) const;
    Result<Stat> exists(BytesView path, Watcher watcher = {}) const;
    Result<Data> get(BytesView path, Watcher watcher = {}) const;
    Result<Children> children(BytesView path, const Page& page = {}, Watcher watcher = {}) const;
    Result<Found> read(const Query& query) const;
    Result<MultiRead> multi_read(std::vector<Query> queries) const;
    Result<void> add_watch(BytesView path, AddWatchMode mode, Watcher watcher) const;
    Result<void> watch_since(Zxid since, Watched what, BytesView path, Watcher watcher) const;
    Result<void> remove_watches(BytesView path, WatcherType type = WatcherType::any) const;
    Result<void> sync() const;
    Result<void> close() const;
    Subscription subscribe(BytesView path, const SubscribeOptions& options) const {
        return session_.subscribe(path, options);
    }
    // Waits until there is something to take.
    Result<std::vector<Change>> take(const Subscription& from, std::size_t most = 256) const;

    // The same for anything that takes a callback last:
    //     Result<Grant> grant = zk.wait<Grant>([&](auto done) { lock.acquire(done); });
    template <class T, class Start>
    Result<T> wait(Start&& start) const {
        return wait<T>(session_.replica(), pump_, std::forward<Start>(start));
    }
    template <class T, class Start>
    static Result<T> wait(Replica& replica, const Pump& pump, Start&& start);

private:
    Session session_;
    Pump pump_;
};

template <class T, class Start>
Result<T> Sync::wait(Replica& replica, const Pump& pump, Start&& start) {
    if (replica.is_polling()) return Errc::api_error;
    Result<T> answer = Errc::operation_timeout;
    const detail::Waiting waiting(&answer);
    start(Callback<void(Result<T>)>([state = waiting.state](Result<T> result) {
        Result<T>* const place = static_cast<Result<T>*>(detail::Waiting::take(*state));
        if (place != nullptr) *place = std::move(result);
    }));
    waiting.pump_until_answered(pump);
    return answer;
}

// =================================================================================================
// Part One, chapter 14: Recipes
// =================================================================================================
// Purpose    A lock that only one session of the ensemble holds at a time; one that readers share.
//            Barriers: who comes waits until it is opened, or until all are there.
// Invariants K1 A turn (one acquisition) has at most one node, and one that is over leaves none: it
//            is removed as soon as its path is known.
//            K2 A turn is granted once, by the list that shows no lower number than its own that it
//            waits for, while its node is watched and its session is certainly alive.
//            K3 A waiter watches only the last node before its own that it waits for, a reader the
//            last of a writer, and looks again when it goes.
//            K4 Each acquire is answered once; each grant is followed by one release or one loss.
//            K5 What becomes a reader's keeps its number and its token. There is no moment at which
//            neither its node nor the writer's is there, and no list, of however many pages, that
//            shows neither.
//            K6 Who waits at a barrier goes by what was read after its event, never by the event.
//            K7 A round of a double barrier begins in the one step that makes `ready`, when as many
//            members are there. Its members are those whose nodes are older than that; each of them
//            is let through, or its session ends, and nobody else is.
// May touch  Chapter 13's public face alone.
// Format     Curator's: <path>/_c_<uuid>-lock-<number>, ephemeral; the lowest number holds the
//            lock. Readers and writers have __READ__ and __WRIT__ in the place of lock-. Whatever
//            else under path ends in a number stands in the same queue, as a writer. A barrier is
//            a node that is there or not; a double one has a child <uuid> of each member,
//            ephemeral, and ready. What else is below it is a member.
// Reading    ZooKeeper's recipes, "Locks"; Curator's InterProcessMutex and
//            InterProcessReadWriteLock, DistributedBarrier, DistributedDoubleBarrier.

// A grant of a lock. The token is the zxid that created the lock's node, so it is larger than that
// of every grant before; a reader's than that of every writer before. Hand it to what the lock
// guards, and let that refuse a token lower than the highest it has seen: this alone holds off a
// holder that was stopped, resumed, and does not know yet that it has lost.
//
// What it guards in the tree needs no such care: writes through guarded(session) take effect while
// the lock is this grant's, and are guard_lost after; the ensemble itself refuses the token.
struct Grant {
    std::uint64_t fencing_token = 0;
    Bytes node;  // the path of the lock's node
    Zxid czxid;  // of that node: the token, but of a reader that has been a writer

    // A handle whose writes are guarded by it: see Session::guarded_by. REQUIRES the lock's
    // session, or another one below the same path.
    Session guarded(const Session& session) const;
};

using OnGranted = Callback<void(Result<Grant>)>;
using OnLost = Callback<void(Errc)>;

namespace detail {
struct LockCore;
struct BarrierCore;
struct DoubleBarrierCore;
}

// A lock is not a mutex: its holder can be cut off, or stopped by its operating system, while the
// ensemble waits for nobody. So for what is outside the tree a holder either works under the
// fencing token, or looks at is_held(now) before each step and stops in time for certain_until(),
// or both; and what is in the tree it writes through Grant::guarded, which is exact where
// certain_until is careful: it works until the node has gone, and not a write longer.
//
//     coord::Lock lock{session, "/locks/door"};
//     lock.on_lost([&](coord::Errc) { stop(); });
//     lock.acquire([&](coord::Result<coord::Grant> grant) {
//         if (grant) start(grant->fencing_token);
//     });
//
// Everything is called on the thread that polls the replica, which must outlive the lock. Callbacks
// come inside poll, never inside the call, and may call anything, and destroy the lock. Destroying
// it drops its callbacks uncalled and removes its node; a release under way is still answered. One
// Lock is one place in the queue: two contenders in one program are two of them.
class Lock {
public:
    // The ACL is that of all nodes that it makes. Who contends must have create, read and remove on
    // the lock's path, and read on each other's nodes: who has to wait behind one that it may not
    // read is told no_auth.
    Lock(Session session, BytesView path, const Acl& acl = {});
    ~Lock();
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;

    // Waits for its turn, without a limit. Parents of the lock that are missing are created,
    // persistent. Errors: bad_arguments (the path; or this Lock waits or holds already), cancelled,
    // lock_lost (somebody removed the node that waits), session_expired, session_moved, and those
    // of create. None leaves a node behind but session_moved and replica_failed: that is the
    // session's, as long as it goes on.
    void acquire(OnGranted done);
    // The same, and operation_timeout when it has not been granted so long after now: it will not
    // be any more.
    void acquire_for(Duration limit, OnGranted done);
    // The same, and lock_busy where somebody is before it. That is decided by the ensemble: the
    // answer takes as long as a write does.
    void try_acquire(OnGranted done);
    // Takes a waiting acquire back, which gets cancelled. Does nothing to a lock that is held.
    void cancel();
    // Gives the lock back, or a waiting acquire (which gets cancelled). is_held is false at once;
    // done comes when the node is gone. acquire may be called again before. With nothing to give
    // back it is a success. Errors: lock_lost (the node was gone before), session_expired,
    // session_moved or replica_failed (the node may be there).
    void release(OnDone done = {});
    // Called once for each grant that ends without release or destruction: lock_lost (somebody
    // removed the node), session_expired (also: closed), session_moved or replica_failed. Replaces
    // the listener before. A session that is suspended is no loss yet: mind certain_until.
    void on_lost(OnLost listener);

    // True from the grant to the release or loss, as long as now, on the clock of poll, is before
    // certain_until.
    bool is_held(Time now) const;
    // Until when nobody else can have been granted the lock, unless somebody removes its node, or
    // attaches its session and closes it. Moves on while the replica hears the ensemble. Time{}
    // while it is not held, or not certain.
    Time certain_until() const;
    std::uint64_t fencing_token() const;  // of the present grant; 0 while there is none
    const Bytes& path() const;

private:
    friend class ReadWriteLock;
    detail::LockCore* const core_;  // holds itself until this is destroyed
};

enum class Access : std::uint8_t { read, write };

// A lock that readers hold together, or one writer alone. They stand in one queue: a reader waits
// for the writers before it, and a writer for all. One ReadWriteLock is one place in it, to read or
// to write, and what Lock says holds for both. A Lock of the same path is one more writer. Readers
// have no order among each other, so what they guard compares their tokens with writers' alone.
class ReadWriteLock : private Lock {
public:
    using Lock::Lock;
    void acquire(Access access, OnGranted done);
    void acquire_for(Access access, Duration limit, OnGranted done);
    void try_acquire(Access access, OnGranted done);
    // Makes of a writer's grant a reader's, without a gap: who waits to write goes on waiting, who
    // waits to read behind this one need not any more. It is held for writing until done comes,
    // with the grant from then on: the token is the same, the node is another. What is guarded by
    // the grant before is guard_lost. The other way there is none: two readers would wait for each
    // other. Errors: bad_arguments (this does not hold it for writing, or asks already); cancelled
    // (it was released); those of create, and it is held for writing as before; and those of a
    // loss, which on_lost hears too.
    void downgrade(OnGranted done);
    using Lock::cancel;
    using Lock::release;
    using Lock::on_lost;
    using Lock::is_held;
    using Lock::certain_until;
    using Lock::fencing_token;
    using Lock::path;
};

// A node that holds up whoever waits, as long as it is there. Destroying a Barrier drops its
// callbacks uncalled, and takes nothing away. Errors, beside those of a session: bad_arguments (the
// path).
class Barrier {
public:
    Barrier(Session session, BytesView path, const Acl& acl = {});
    ~Barrier();
    Barrier(const Barrier&) = delete;
    Barrier& operator=(const Barrier&) = delete;

    // Persistent, as missing parents are: it stays when its maker goes. A success where it is there
    // already, and the other way round for lower.
    void raise(OnDone done);
    void lower(OnDone done);
    // Waits until it is not there: as new as any write that had ended when that was read. Errors:
    // bad_arguments (this waits already), cancelled, operation_timeout.
    void wait(OnDone done);
    void wait_for(Duration limit, OnDone done);
    void cancel();

private:
    detail::BarrierCore* const core_;  // holds itself until this is destroyed
};

// Members wait for each other at the beginning of what they do together, and at its end. All of a
// round are let through, or none: one that gives up is told so only where the round has not begun
// without it. Who comes when a round has begun is of the next one, and that begins when all of this
// one have left, or their sessions have ended. Destroying it drops its callbacks uncalled, and
// removes its node.
class DoubleBarrier {
public:
    static constexpr std::size_t members_max = 1000;
    // All give the same number. No more than Limits::list_max, and answers must have room.
    DoubleBarrier(Session session, BytesView path, std::size_t members, const Acl& acl = {});
    ~DoubleBarrier();
    DoubleBarrier(const DoubleBarrier&) = delete;
    DoubleBarrier& operator=(const DoubleBarrier&) = delete;

    // Waits until as many are there. Missing parents are created, persistent. Errors: bad_arguments
    // (the path, the number; it is in use); cancelled; lock_lost (somebody removed its node);
    // too_large (there are too many to be listed); those of a session and of create.
    void enter(OnDone done);
    // The same, and operation_timeout. The ensemble decides it, so that it takes as long as a write
    // does, and may turn out a success.
    void enter_for(Duration limit, OnDone done);
    // Waits until all of the round have left. Errors: bad_arguments (it is not inside); cancelled
    // (it has left, and does not wait for the others); those of a session.
    void leave(OnDone done);
    // Takes a waiting enter back, as enter_for does, or a waiting leave, at once.
    void cancel();
    bool is_inside() const;  // from the answer of enter to the call of leave

private:
    detail::DoubleBarrierCore* const core_;  // holds itself until this is destroyed
};

// =================================================================================================
// Part One, chapter 15: Simulation
// =================================================================================================
// Purpose    A whole ensemble in one thread, for tests: virtual time, a network, disks and clocks
//            with faults, crashes and pauses, traces.
// Invariants V1 A run follows from its seed, its options and the calls made, bit for bit, on every
//            compiler and word size. Network, disks, clocks and starts draw from streams of their
//            own, so that one draw more in one does not shift the others.
//            V2 Time stands still between two events: an idle hour costs what its heartbeats do.
//            V3 A replica sees what a real host would give it, and nothing else: its own clock,
//            messages, and what its disk kept.
// May touch  Everything above; nothing sees it.
// Reading    FoundationDB's and TigerBeetle's simulators; the test programs in tests/sim.

struct SimulatedNetwork {
    Duration latency_min = microseconds(100);
    Duration latency_max = microseconds(300);  // in order on each link, but for what is below
    std::uint32_t loss_permille = 0;
    std::uint32_t repeat_permille = 0;   // comes once more, up to delay_max later
    std::uint32_t delay_permille = 0;    // comes up to delay_max late, and others overtake it
    Duration delay_max = milliseconds(50);
    std::uint32_t damage_permille = 0;   // comes with one bit flipped
    // So often a third party, who has no key, sends one of the messages that it has recorded, ever:
    // as it was, the other way, to somebody else, changed, or without its seal. REQUIRES keys.
    std::uint32_t third_party_permille = 0;
};

struct SimulatedDisk {
    Duration flush_min;                  // from a flush until it is durable
    Duration flush_max;                  // 0: durable at once
    bool torn = true;                    // a crash keeps some first part of what is not durable
};

struct SimulatedClocks {
    std::uint32_t rate_permille_min = 1000;  // each replica's clock has a rate of its own, from
    std::uint32_t rate_permille_max = 1000;  // this range; at most 2000, at least 500
    Duration wall_error_max;                 // each wall clock is wrong by so much at most
};

struct SimulationOptions {
    std::uint32_t voters = 3;            // 1 to 63; their ids are 1, 2, 3 and so on
    std::uint32_t observers = 0;         // theirs go on from there
    std::uint64_t seed = 1;
    SimulatedNetwork network;
    SimulatedDisk disk;
    SimulatedClocks clocks;
    ReplicaOptions replica;              // id, voters and entropy are filled in
    std::size_t message_bytes_max = 64 * 1024;
    Duration poll_delay_max;             // a message is looked at up to so long after it came
    std::size_t trace_lines = 0;         // the newest so many are kept; 0 = no trace
};

struct SimulationCounters {
    std::uint64_t steps = 0;
    std::uint64_t polls = 0;
    std::uint64_t polls_wanted = 0;      // after which the replica wanted another at once
    std::uint64_t messages_sent = 0;
    std::uint64_t messages_delivered = 0;
    std::uint64_t messages_lost = 0;     // by chance, on a cut link, at a replica that is down
    std::uint64_t messages_repeated = 0;
    std::uint64_t messages_delayed = 0;
    std::uint64_t messages_damaged = 0;
    std::uint64_t messages_forged = 0;   // by the third party
    std::uint64_t crashes = 0;
    std::uint64_t restarts = 0;
    std::uint64_t pauses = 0;
    std::uint64_t cuts = 0;              // links, each direction for itself
    std::uint64_t stalls = 0;
    std::uint64_t records_lost = 0;      // by crashes
    std::uint64_t hints = 0;             // that a peer is gone
};

class Simulation final : private ReplicaObserver {
public:
    // A replica, by its number or its id, so that crash(2) and crash(sim.leader()) both work.
    struct Which {
        std::uint32_t number;
        constexpr Which(std::uint32_t n) : number(n) {}
        constexpr Which(PeerId id) : number(id.value) {}
    };
    using Group = std::initializer_list<Which>;

    explicit Simulation(const SimulationOptions& options = {});  // starts every replica
    ~Simulation();
    Simulation(const Simulation&) = delete;
    Simulation& operator=(const Simulation&) = delete;

    // Time. A step is one event: a message comes, a flush is durable, an action runs, or a replica
    // is polled. None of these inside a callback or an action.
    Time now() const { return now_; }
    bool step() { return advance(never); }  // false: nothing will ever happen
    void run_for(Duration duration);
    bool run_until(const Callback<bool()>& condition, Duration limit);  // RETURNS condition()
    // For the blocking face of sessions: steps, and gives up, once, when a call has taken limit.
    Callback<bool()> pump(Duration limit = seconds(60));
    // Runs an action of the test at that time, between two polls.
    void after(Duration delay, Callback<void()> action);

    // Replicas.
    std::uint32_t size() const { return options_.voters + options_.observers; }
    Replica& replica(Which which);           // REQUIRES is_running
    MemoryStorage& storage(Which which);
    bool is_running(Which which) const;      // not crashed
    bool is_paused(Which which) const;
    PeerId leader() const;                   // that serves, of the highest epoch; or nobody
    void crash(Which which);                 // inside its own callback: when its poll is done
    void crash_at_send(Which which, std::uint32_t sends);  // after so many: in the midst of a poll
    // Calls this before a replica is destroyed: what points into it (locks above all) has to go.
    void before_crash(Callback<void(PeerId)> call) { before_crash_ = std::move(call); }
    void restart(Which which);               // on the disk that it had; REQUIRES !is_running
    void pause(Which which);                 // it stands still; a bounded part of what comes waits
    void resume(Which which);
    void stall(Which which, Duration duration);  // its disk makes nothing durable for so long
    // Its transport hints that a peer is gone, as after a TCP reset: the truth or not. A crash or
    // a cut link does not say so by itself. REQUIRES is_running.
    void forget(Which which, Which peer);
    // Each replica's own clocks.
    Time clock(Which which) const;
    Time when(Which which, Time clock) const;    // the virtual time at which its clock shows that
    void advance_clock(Which which, Duration by);      // as after a suspend; by >= 0
    void advance_wall_clock(Which which, Duration by);

    // The network. What is on its way still comes.
    void partition(Group one, Group other);  // cuts every link between the two, both ways
    void isolate(Which which);               // cuts every link of it
    void cut(Which from, Which to);          // one way
    void heal(Which from, Which to);
    void heal();                             // every link
    const SimulatedNetwork& network() const { return options_.network; }
    void set_network(const SimulatedNetwork& network);
    void set_disk(const SimulatedDisk& disk);

    // What happened.
    std::uint64_t hash() const { return hash_; }  // of everything so far: equal for equal runs
    const SimulationCounters& counters() const { return counters_; }
    void set_observer(ReplicaObserver* observer) { observer_ = observer; }  // of all replicas
    void note(BytesView text);               // into the trace
    Bytes trace_text() const;                // a line for each message, role, fault
    Bytes trace_mermaid() const;             // a sequence diagram, without heartbeats

private:
    struct Node;
    struct Link {
        bool cut = false;
        Time last_arrival;
    };
    struct Packet {
        PeerId from;
        PeerId to;
        Bytes bytes;
    };
    enum class EventKind : std::uint8_t { message, durable, action };
    struct Event {
        Time at;
        std::uint64_t order = 0;
        EventKind kind = EventKind::message;
        std::uint32_t what = 0;       // a packet, a node, an action
        std::uint64_t start = 0;      // durable: of which start of the node
        Sequence sequence = 0;        // durable: up to this one
    };
    struct Line {
        Time at;
        char kind = 'n';              // 'm' message, 'x' lost message, 'n' note, 'h' heartbeat
        std::uint32_t from = 0;       // 0: a note on the whole
        std::uint32_t to = 0;
        Bytes text;
    };

    bool advance(Time limit);
    Time due_at(Node& node);
    void note_deadline(Node& node);
    void note_calls(Node& node);
    void schedule(Time at, EventKind kind, std::uint32_t what, std::uint64_t start = 0,
                  Sequence sequence = 0);
    void handle(const Event& event);
    void deliver(std::uint32_t packet);
    void poll(Node& node);
    void schedule_flush(Node& node);
    void send(Node& from, PeerId to, BytesView bytes);
    void transmit(Node& from, PeerId to, BytesView bytes, bool repeated);
    std::uint32_t take_packet(PeerId from, PeerId to, BytesView bytes);
    void overhear(PeerId from, PeerId to, BytesView bytes);
    void forge(Packet& packet);
    void start(Node& node);
    void stop(Node& node);
    Node& node(Which which) const;
    Link& link(Which from, Which to);
    Duration draw(Rng& rng, Duration low, Duration high);
    void mix(std::uint64_t tag, std::uint64_t a, std::uint64_t b);
    bool is_traced() const { return options_.trace_lines > 0; }
    void trace(char kind, PeerId from, PeerId to, BytesView text);
    void trace_message(bool lost, PeerId from, PeerId to, BytesView bytes);
    void on_role(PeerId id, Role role, PeerId leader, std::uint32_t epoch) override;
    void on_established(PeerId id, std::uint32_t epoch, Zxid initial) override;
    void on_applied(PeerId id, const Txn& txn, const Outcome* outcome,
                    std::uint64_t digest) override;
    void on_installed(PeerId id, Zxid zxid, std::uint64_t digest) override;
    void on_log(PeerId id, const LogLine& line) override;

    SimulationOptions options_;
    Rng network_rng_;
    Rng disk_rng_;
    Rng clock_rng_;
    Rng start_rng_;
    Rng third_rng_;
    Time now_;
    detail::Array<detail::Owned<Node>> nodes_;
    detail::Array<Link> links_;           // from, to
    detail::Agenda<Event> events_;
    detail::Ring<Packet> packets_;        // used again, with their memory
    detail::Ring<Packet> overheard_;      // by the third party: of all times
    std::vector<std::uint32_t> free_packets_;
    detail::Ring<Callback<void()>> actions_;
    std::vector<std::uint32_t> free_actions_;
    bool stepping_ = false;
    std::uint64_t calls_ = 0;             // how often a replica was called between steps
    std::uint64_t hash_ = 0;
    SimulationCounters counters_;
    ReplicaObserver* observer_ = nullptr;
    Callback<void(PeerId)> before_crash_;
    detail::Ring<Line> lines_;
};

}  // inline namespace COORD_ABI
}  // namespace coord

#endif  // COORD_HPP

#if defined(COORD_IMPLEMENTATION) && !defined(COORD_IMPLEMENTED)
#define COORD_IMPLEMENTED

// =================================================================================================
// Part Two, chapter 0: Configuration
// =================================================================================================

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#ifndef COORD_NO_THREADS
#include <condition_variable>
#include <mutex>
#include <thread>
#endif

// Called so seldom that small code is better than fast code: what starts, recovers and audits.
#ifdef __GNUC__
#define COORD_RARE __attribute__((cold))
#else
#define COORD_RARE
#endif

namespace coord {
inline namespace COORD_ABI {
namespace detail {

// COORD_ASSERT_HOOK(condition, file, line) may log, unwind by longjmp or stop the program its own
// way. Where it returns, the program is aborted: the state can no longer be trusted.
[[noreturn]] void assert_failed(const char* condition, int line) {
#ifdef COORD_ASSERT_HOOK
    COORD_ASSERT_HOOK(condition, __FILE__, line);
#else
    std::fprintf(stderr, "coord: assertion failed: %s (%s:%d)\n", condition, __FILE__, line);
#endif
    std::abort();
}

// Of what is compiled into every use of a queue.
[[noreturn]] void index_failed() { assert_failed("index < size", __LINE__); }

}  // namespace detail

// =================================================================================================
// Part Two, chapter 1: Foundations
// =================================================================================================

namespace detail {

struct Holders {
    std::atomic<std::size_t> count{1};
    void (*destroy)(Holders* holders) = nullptr;
};

void hold(Holders* holders) {
    if (holders != nullptr) holders->count.fetch_add(1, std::memory_order_relaxed);
}

void let_go(Holders* holders) {
    if (holders != nullptr && holders->count.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        holders->destroy(holders);
    }
}

// RETURNS what was given, on the heap, with its first holder.
template <class T>
Shared<T> share(T&& given) {
    struct Counted : Holders {
        explicit Counted(T&& item) : whole(std::move(item)) {}
        T whole;
    };
    Counted* const counted = new Counted(std::move(given));
    counted->destroy = [](Holders* holders) { delete static_cast<Counted*>(holders); };
    return Shared<T>(&counted->whole, counted);
}

AnyCallback::AnyCallback(const AnyCallback& other)
    : place_(other.place_), manage_(other.manage_), entry_(other.entry_) {
    if (manage_ != nullptr) place_.heap = manage_(other.place_.heap, true);
}

// What was held is destroyed last: it may come back here.
AnyCallback& AnyCallback::operator=(AnyCallback&& other) noexcept {
    const Place place = place_;
    const Manage manage = manage_;
    place_ = other.place_, manage_ = other.manage_, entry_ = other.entry_;
    other.manage_ = nullptr, other.entry_ = nullptr;
    if (manage != nullptr) manage(place.heap, false);
    return *this;
}

struct ErrcRow {
    Errc code;
    const char* name;
    const char* text;
};

// One row for each enumerator, in its order.
constexpr ErrcRow errc_rows[] = {
    {Errc::ok, "ok", "It worked."},
    {Errc::system_error, "system_error",
     "Something failed that has no code of its own; look into the log of the other side."},
    {Errc::runtime_inconsistency, "runtime_inconsistency",
     "Another part of the same transaction failed; act on that part's error."},
    {Errc::data_inconsistency, "data_inconsistency",
     "Replicas disagree; stop using this one and compare it with the others."},
    {Errc::connection_loss, "connection_loss",
     "The outcome is unknown; read the state before you repeat the request."},
    {Errc::marshalling_error, "marshalling_error",
     "The request cannot be decoded; use one version of coord on all sides."},
    {Errc::unimplemented, "unimplemented",
     "The other side does not know this operation; update it, or do without."},
    {Errc::operation_timeout, "operation_timeout",
     "No answer in time and the outcome is unknown; read the state before you repeat."},
    {Errc::bad_arguments, "bad_arguments",
     "The path, mode or another argument is not allowed; correct the call."},
    {Errc::unknown_session, "unknown_session",
     "No such session has been opened here; open a new one."},
    {Errc::new_config_no_quorum, "new_config_no_quorum",
     "Too few of the new members are in step; start them, wait, and ask again."},
    {Errc::reconfig_in_progress, "reconfig_in_progress",
     "Another change of the membership is under way; wait for it and ask again."},
    {Errc::api_error, "api_error", "The call is not allowed as it was made; correct it."},
    {Errc::no_node, "no_node", "There is no such node or parent; create it first."},
    {Errc::no_auth, "no_auth",
     "The node's access list forbids this; add the credential that it asks for."},
    {Errc::bad_version, "bad_version",
     "Somebody changed the node since you read it; read it again and decide anew."},
    {Errc::no_children_for_ephemerals, "no_children_for_ephemerals",
     "An ephemeral node has no children; use a persistent parent."},
    {Errc::node_exists, "node_exists",
     "The node is there already; compare its owner with your session before you use it."},
    {Errc::not_empty, "not_empty", "The node has children; remove them first."},
    {Errc::session_expired, "session_expired",
     "The session and its ephemeral nodes are gone; open a new one and start over."},
    {Errc::invalid_callback, "invalid_callback", "The callback cannot be called; pass another."},
    {Errc::invalid_acl, "invalid_acl", "The access list is empty or malformed; correct it."},
    {Errc::auth_failed, "auth_failed",
     "The credential, or the password of a session, was refused; correct it."},
    {Errc::session_moved, "session_moved",
     "The session is attached elsewhere now; use it there, or attach it again."},
    {Errc::not_read_only, "not_read_only",
     "This replica only answers reads; write through one that has a majority."},
    {Errc::ephemeral_on_local_session, "ephemeral_on_local_session",
     "A local session owns no ephemeral nodes; open a replicated one."},
    {Errc::no_watcher, "no_watcher", "No such watcher is set; there is nothing to remove."},
    {Errc::request_timeout, "request_timeout",
     "The request took too long and its outcome is unknown; read before you repeat."},
    {Errc::reconfig_disabled, "reconfig_disabled",
     "The membership is fixed by the options; change them and restart."},
    {Errc::session_closed_require_sasl_auth, "session_closed_require_sasl_auth",
     "The other side wants a login first; configure one."},
    {Errc::quota_exceeded, "quota_exceeded",
     "The subtree is full; remove nodes or raise its quota."},
    {Errc::throttled_op, "throttled_op", "It was not executed; slow down and repeat it."},
    {Errc::too_large, "too_large",
     "Something in the request is over its limit; make it smaller or raise the limit."},
    {Errc::too_many, "too_many",
     "A bound of Limits is reached; wait for what is in flight, or remove something."},
    {Errc::corrupt, "corrupt",
     "The bytes are damaged or not coord's; restore them from a healthy replica."},
    {Errc::storage_failed, "storage_failed",
     "The storage failed and the replica stopped; repair the storage and restart."},
    {Errc::replica_failed, "replica_failed",
     "The replica has stopped; read the reason in its status and restart it."},
    {Errc::cancelled, "cancelled", "The caller took it back; nothing is left to do."},
    {Errc::lock_busy, "lock_busy", "Somebody else holds the lock; wait for it or come back."},
    {Errc::lock_lost, "lock_lost",
     "The lock may be somebody else's by now; stop what it guards and acquire it again."},
    {Errc::storage_full, "storage_full",
     "The disk is full; free space, meanwhile reads, deletes and closes still work."},
    {Errc::storage_locked, "storage_locked",
     "Somebody else uses this storage; stop that process or choose another directory."},
    {Errc::condition_failed, "condition_failed",
     "The node is not as the condition asks; read it again and decide anew."},
    {Errc::guard_lost, "guard_lost",
     "What guards this handle's writes is gone; stop, and acquire the lock again."},
    {Errc::snapshot_needed, "snapshot_needed",
     "The changes since then are not kept here; read the nodes and subscribe from that zxid."},
    {Errc::outcome_unknown, "outcome_unknown",
     "The write was executed once, or not at all; read what it would have changed, and decide."},
};

static const ErrcRow* find_errc(Errc code) {
    for (const ErrcRow& row : errc_rows) {
        if (row.code == code) return &row;
    }
    return nullptr;
}

}  // namespace detail

const char* name(Errc code) {
    const detail::ErrcRow* row = detail::find_errc(code);
    return row == nullptr ? "unknown" : row->name;
}

const char* text(Errc code) {
    const detail::ErrcRow* row = detail::find_errc(code);
    return row == nullptr ? "unknown" : row->text;
}

// FORMAT: seeds are written down in tests and traces, so the numbers must never change.
std::uint64_t Rng::next() {
    state_ += 0x9E3779B97F4A7C15u;
    std::uint64_t mixed = state_;
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBu;
    return mixed ^ (mixed >> 31);
}

// The 2^64 mod bound smallest numbers are drawn again, so that each remainder is equally likely.
// A draw is refused in fewer than half of the cases.
std::uint64_t Rng::below(std::uint64_t bound) {
    COORD_ASSERT(bound > 0);
    std::uint64_t drawn = next();
    if (drawn < bound) {  // hardly ever, and what is refused is less
        const std::uint64_t refused = (0 - bound) % bound;
        while (drawn < refused) drawn = next();
    }
    return drawn % bound;
}

bool Rng::chance(std::uint32_t permille) {
    COORD_ASSERT(permille <= 1000);
    constexpr std::uint64_t bound = 1000, refused = (0 - bound) % bound;  // below(1000), inlined
    std::uint64_t drawn = next();
    while (drawn < refused) drawn = next();
    return drawn % bound < permille;
}

std::uint64_t Rng::between(std::uint64_t low, std::uint64_t high) {
    COORD_ASSERT(low <= high);
    const std::uint64_t span = high - low;
    return span == UINT64_MAX ? next() : low + below(span + 1);
}

namespace detail {

void* RingBase::add(const Kind& kind) {
    if (size_ == capacity_) grow(kind);
    void*& block = block_of(head_ + size_);
    if (block == nullptr) block = kind.make(block_slots);
    size_ += 1;
    return block;
}

void RingBase::destroy(const Kind& kind) {
    for (std::size_t i = 0; blocks_ != nullptr && i <= block_mask_; i++) kind.destroy(blocks_[i]);
    delete[] blocks_;
}

void RingBase::swap(RingBase& other) {
    std::swap(blocks_, other.blocks_);
    std::swap(slot_mask_, other.slot_mask_), std::swap(block_mask_, other.block_mask_);
    std::swap(capacity_, other.capacity_);
    std::swap(head_, other.head_), std::swap(size_, other.size_);
}

void RingBase::grow(const Kind& kind) {
    COORD_ASSERT(size_ == capacity_);
    if (size_ >= block_slots) return widen(kind);
    const std::size_t larger = size_ == 0 ? 8 : size_ * 2;
    void* const slots = kind.make(larger);
    for (std::size_t i = 0; i < size_; i++) {
        kind.move(slots, i, block_of(head_ + i), (head_ + i) & slot_mask_);
    }
    if (blocks_ == nullptr) blocks_ = new void*[1]();
    kind.destroy(blocks_[0]);
    blocks_[0] = slots, slot_mask_ = larger - 1, head_ = 0;
    capacity_ = larger;
}

// The first block is the last one too where the queue begins inside it: what is at its end goes
// into a block of its own.
void RingBase::widen(const Kind& kind) {
    const std::size_t count = block_mask_ + 1;
    const std::size_t first = head_ / block_slots, ended = head_ % block_slots;
    void** const wider = new void*[count * 2]();
    for (std::size_t i = 0; i < count; i++) wider[i] = blocks_[(first + i) & block_mask_];
    if (ended > 0) wider[count] = kind.make(block_slots);
    for (std::size_t i = 0; i < ended; i++) kind.move(wider[count], i, wider[0], i);
    delete[] blocks_;
    blocks_ = wider, block_mask_ = count * 2 - 1, head_ = ended;
    capacity_ = count * 2 * block_slots;
}

std::uint64_t& number_at(Numbers& numbers, std::uint64_t key) {
    return numbers.emplace(std::pair<const std::uint64_t, std::uint64_t>(key, 0)).first->second;
}

}  // namespace detail

// =================================================================================================
// Part Two, chapter 2: Codec
// =================================================================================================

namespace detail {

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
constexpr bool is_little_endian = true;
#else
constexpr bool is_little_endian = false;  // or not known: bytes are taken one by one
#endif

static std::uint32_t load_little32(const char* bytes) {
    std::uint32_t word = 0;
    if (is_little_endian) return std::memcpy(&word, bytes, sizeof word), word;
    for (unsigned i = 4; i > 0; i--) word = word << 8 | static_cast<unsigned char>(bytes[i - 1]);
    return word;
}

static std::uint64_t load_little64(const char* bytes) {
    std::uint64_t word = 0;
    if (is_little_endian) return std::memcpy(&word, bytes, sizeof word), word;
    return std::uint64_t{load_little32(bytes + 4)} << 32 | load_little32(bytes);
}

static std::uint32_t load_big32(const char* bytes) {
    const auto at = [bytes](unsigned i) -> std::uint32_t {
        return static_cast<unsigned char>(bytes[i]);
    };
    return at(0) << 24 | at(1) << 16 | at(2) << 8 | at(3);
}

static std::uint64_t load_big64(const char* bytes) {
#ifdef __GNUC__
    if (is_little_endian) return __builtin_bswap64(load_little64(bytes));
#endif
    return std::uint64_t{load_big32(bytes)} << 32 | load_big32(bytes + 4);
}

static void store_big32(char* out, std::uint32_t value) {
    out[0] = static_cast<char>(value >> 24);
    out[1] = static_cast<char>(value >> 16);
    out[2] = static_cast<char>(value >> 8);
    out[3] = static_cast<char>(value);
}

static void store_big64(char* out, std::uint64_t value) {
#ifdef __GNUC__
    if (is_little_endian) {
        value = __builtin_bswap64(value);
        std::memcpy(out, &value, sizeof value);
        return;
    }
#endif
    store_big32(out, static_cast<std::uint32_t>(value >> 32));
    store_big32(out + 4, static_cast<std::uint32_t>(value));
}

}  // namespace detail

void Writer::u32(std::uint32_t value) {
    char encoded[4];
    detail::store_big32(encoded, value);
    out_.append(encoded, sizeof encoded);
}

void Writer::u64(std::uint64_t value) {
    char encoded[8];
    detail::store_big64(encoded, value);
    out_.append(encoded, sizeof encoded);
}

void Writer::bytes(BytesView value) {
    COORD_ASSERT(value.size() <= UINT32_MAX);
    u32(static_cast<std::uint32_t>(value.size()));
    out_.append(value);
}

void Writer::patch_u32(std::size_t offset, std::uint32_t value) {
    COORD_ASSERT(out_.size() >= 4);
    COORD_ASSERT(offset <= out_.size() - 4);
    detail::store_big32(&out_[offset], value);
}

BytesView Reader::raw(std::size_t size) {
    if (!ok_ || size > rest_.size()) {
        ok_ = false, rest_ = {};
        return {};
    }
    const BytesView taken(rest_.data(), size);
    rest_.remove_prefix(size);
    return taken;
}

// A bad reader has nothing left, so that the size alone decides in these.
std::uint8_t Reader::u8() {
    if (rest_.empty()) return ok_ = false, std::uint8_t{0};
    const auto value = static_cast<std::uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    return value;
}

std::uint32_t Reader::u32() {
    if (rest_.size() < 4) return ok_ = false, rest_ = {}, 0;
    const std::uint32_t value = detail::load_big32(rest_.data());
    rest_.remove_prefix(4);
    return value;
}

std::uint64_t Reader::u64() {
    if (rest_.size() < 8) return ok_ = false, rest_ = {}, 0;
    const std::uint64_t value = detail::load_big64(rest_.data());
    rest_.remove_prefix(8);
    return value;
}

BytesView Reader::bytes(std::size_t size_max) {
    const std::uint32_t size = u32();
    if (size > size_max) ok_ = false, rest_ = {};
    return raw(size);
}

namespace detail {

// Slicing by eight: row r holds the checksum of a byte with r zero bytes after it.
constexpr std::array<std::array<std::uint32_t, 256>, 8> make_crc32c_table() {
    std::array<std::array<std::uint32_t, 256>, 8> table{};
    for (std::uint32_t byte = 0; byte < 256; byte++) {
        std::uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78u : 0u);
        table[0][byte] = crc;
    }
    for (std::size_t row = 1; row < 8; row++) {
        for (std::size_t byte = 0; byte < 256; byte++) {
            const std::uint32_t above = table[row - 1][byte];
            table[row][byte] = (above >> 8) ^ table[0][above & 0xFF];
        }
    }
    return table;
}

constexpr std::array<std::array<std::uint32_t, 256>, 8> crc32c_table = make_crc32c_table();

// Both kinds take and give the register as it is between bytes. This one is the portable one;
// external, so that tests can compare the two.
std::uint32_t crc32c_by_table(BytesView bytes, std::uint32_t crc) {
    const auto& rows = crc32c_table;
    const char* at = bytes.data();
    std::size_t left = bytes.size();
    for (; left >= 8; at += 8, left -= 8) {
        const std::uint32_t low = load_little32(at) ^ crc;
        const std::uint32_t high = load_little32(at + 4);
        crc = rows[7][low & 0xFF] ^ rows[6][(low >> 8) & 0xFF] ^ rows[5][(low >> 16) & 0xFF] ^
              rows[4][low >> 24] ^ rows[3][high & 0xFF] ^ rows[2][(high >> 8) & 0xFF] ^
              rows[1][(high >> 16) & 0xFF] ^ rows[0][high >> 24];
    }
    for (; left > 0; at++, left--) {
        crc = (crc >> 8) ^ rows[0][(crc ^ static_cast<unsigned char>(*at)) & 0xFF];
    }
    return crc;
}

#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("sse4.2"))) static std::uint32_t crc32c_by_instruction(BytesView bytes,
                                                                             std::uint32_t crc) {
    const char* at = bytes.data();
    std::size_t left = bytes.size();
    std::uint64_t wide = crc;
    for (; left >= 32; at += 32, left -= 32) {  // few instructions beside those that count
        wide = __builtin_ia32_crc32di(wide, load_little64(at));
        wide = __builtin_ia32_crc32di(wide, load_little64(at + 8));
        wide = __builtin_ia32_crc32di(wide, load_little64(at + 16));
        wide = __builtin_ia32_crc32di(wide, load_little64(at + 24));
    }
    for (; left >= 8; at += 8, left -= 8) {
        wide = __builtin_ia32_crc32di(wide, load_little64(at));
    }
    crc = static_cast<std::uint32_t>(wide);
    if (left >= 4) crc = __builtin_ia32_crc32si(crc, load_little32(at)), at += 4, left -= 4;
    for (; left > 0; at++, left--) {
        crc = __builtin_ia32_crc32qi(crc, static_cast<unsigned char>(*at));
    }
    return crc;
}
#endif

}  // namespace detail

std::uint32_t crc32c(BytesView bytes, std::uint32_t seed) {
#if defined(__x86_64__) && defined(__GNUC__)
    if (__builtin_cpu_supports("sse4.2")) return ~detail::crc32c_by_instruction(bytes, ~seed);
#endif
    return ~detail::crc32c_by_table(bytes, ~seed);
}

namespace detail {

// FORMAT: digests of trees are compared between machines, so the constants and the steps of the
// hash must never change. The constants are the fractions of pi and e: nothing up the sleeve.
constexpr std::uint64_t hash_key[8] = {
    0x243F6A8885A308D3u, 0x13198A2E03707344u, 0xA4093822299F31D0u, 0x082EFA98EC4E6C89u,
    0xB7E151628AED2A6Au, 0xBF7158809CF4F3C7u, 0x62E7160F38B4DA56u, 0xA784D9045190CFEFu,
};

// High half of the product xor its low half, in four multiplications of half the width.
std::uint64_t fold_by_halves(std::uint64_t a, std::uint64_t b) {
    const std::uint64_t a_low = a & 0xFFFFFFFFu, a_high = a >> 32;
    const std::uint64_t b_low = b & 0xFFFFFFFFu, b_high = b >> 32;
    const std::uint64_t low = a_low * b_low;
    const std::uint64_t cross = a_high * b_low + (low >> 32);  // cannot overflow
    const std::uint64_t middle = a_low * b_high + (cross & 0xFFFFFFFFu);
    const std::uint64_t high = a_high * b_high + (cross >> 32) + (middle >> 32);
    return high ^ ((middle << 32) | (low & 0xFFFFFFFFu));
}

static std::uint64_t fold(std::uint64_t a, std::uint64_t b) {
#ifdef __SIZEOF_INT128__
    __extension__ using Wide = unsigned __int128;
    const Wide product = static_cast<Wide>(a) * b;
    return static_cast<std::uint64_t>(product >> 64) ^ static_cast<std::uint64_t>(product);
#else
    return fold_by_halves(a, b);
#endif
}

// The operands go in once more, so that a zero on one side does not wipe out the other.
static std::uint64_t stir(std::uint64_t a, std::uint64_t b) { return fold(a, b) ^ a ^ b; }

}  // namespace detail

namespace detail {

class SipState {
public:
    explicit SipState(const SipHash& key)
        : a_(key.low ^ 0x736f6d6570736575u), b_(key.high ^ 0x646f72616e646f6du ^ 0xee),
          c_(key.low ^ 0x6c7967656e657261u), d_(key.high ^ 0x7465646279746573u) {}
    void take(std::uint64_t word) {
        d_ ^= word;
        rounds(2);
        a_ ^= word;
    }
    std::uint64_t give(std::uint64_t mark) {
        (mark == 0xee ? c_ : b_) ^= mark;
        rounds(4);
        return a_ ^ b_ ^ c_ ^ d_;
    }

private:
    static std::uint64_t turned(std::uint64_t word, int by) {
        return word << by | word >> (64 - by);
    }
    void rounds(int count) {
        for (; count > 0; count--) {
            a_ += b_, b_ = turned(b_, 13) ^ a_, a_ = turned(a_, 32);
            c_ += d_, d_ = turned(d_, 16) ^ c_;
            a_ += d_, d_ = turned(d_, 21) ^ a_;
            c_ += b_, b_ = turned(b_, 17) ^ c_, c_ = turned(c_, 32);
        }
    }

    std::uint64_t a_, b_, c_, d_;
};

}  // namespace detail

SipHash siphash(BytesView bytes, const SipHash& key) {
    detail::SipState state(key);
    std::uint64_t last = std::uint64_t{bytes.size() & 0xFF} << 56;
    const char* at = bytes.data();
    std::size_t left = bytes.size();
    for (; left >= 8; at += 8, left -= 8) state.take(detail::load_little64(at));
    for (std::size_t i = 0; i < left; i++) {
        last |= std::uint64_t{static_cast<unsigned char>(at[i])} << 8 * i;
    }
    state.take(last);
    const std::uint64_t low = state.give(0xee);
    return SipHash{low, state.give(0xdd)};
}

COORD_RARE
void append_json_text(BytesView text, Bytes& out) {
    out.push_back('"');
    for (const char each : text) {
        const auto byte = static_cast<unsigned char>(each);
        const bool is_plain = byte >= 0x20 && byte < 0x7F && each != '"' && each != '\\';
        if (is_plain) {
            out.push_back(each);
        } else {
            out.append("\\u00");
            out.push_back("0123456789abcdef"[byte >> 4]);
            out.push_back("0123456789abcdef"[byte & 15]);
        }
    }
    out.push_back('"');
}

// Sixteen bytes a step; the last step takes the last sixteen, which may overlap those before. A
// string shorter than that is spread over both words, and its size tells such strings apart.
std::uint64_t hash64(BytesView bytes, std::uint64_t seed) {
    const char* at = bytes.data();
    std::size_t left = bytes.size();
    std::uint64_t state = seed ^ detail::hash_key[0];
    std::uint64_t first = 0, second = 0;
    for (; left > 16; at += 16, left -= 16) {
        first = detail::load_little64(at), second = detail::load_little64(at + 8);
        state = detail::stir(first ^ detail::hash_key[1], second ^ state);
    }
    if (bytes.size() >= 16) {
        first = detail::load_little64(at + left - 16);
        second = detail::load_little64(at + left - 8);
    } else if (left >= 8) {
        first = detail::load_little64(at), second = detail::load_little64(at + left - 8);
    } else if (left >= 4) {
        first = detail::load_little32(at), second = detail::load_little32(at + left - 4);
    } else if (left > 0) {
        first = static_cast<unsigned char>(at[0]);
        second = std::uint64_t{static_cast<unsigned char>(at[left / 2])} << 8 |
                 static_cast<unsigned char>(at[left - 1]);
    }
    state = detail::stir(first ^ detail::hash_key[2], second ^ state);
    return detail::stir(state ^ detail::hash_key[3], bytes.size() ^ detail::hash_key[4]);
}

std::uint64_t mix64(std::uint64_t a, std::uint64_t b) {
    const std::uint64_t state = detail::stir(a ^ detail::hash_key[5], b ^ detail::hash_key[6]);
    return detail::stir(state, detail::hash_key[7]);
}

namespace detail {

constexpr std::size_t sha1_block_bytes = 64;

static std::uint32_t rotate_left(std::uint32_t word, unsigned bits) {
    return word << bits | word >> (32 - bits);
}

// FIPS 180-4, 6.1.2.
COORD_RARE
static void sha1_block(BytesView block, std::uint32_t (&state)[5]) {
    COORD_ASSERT(block.size() == sha1_block_bytes);
    std::uint32_t words[80];
    for (std::size_t i = 0; i < 16; i++) words[i] = load_big32(block.data() + i * 4);
    for (std::size_t i = 16; i < 80; i++) {
        words[i] = rotate_left(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
    }
    std::uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (std::size_t i = 0; i < 80; i++) {
        const std::uint32_t mixed = i < 20   ? ((b & c) | (~b & d)) + 0x5A827999u
                                    : i < 40 ? (b ^ c ^ d) + 0x6ED9EBA1u
                                    : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8F1BBCDCu
                                             : (b ^ c ^ d) + 0xCA62C1D6u;
        const std::uint32_t next = rotate_left(a, 5) + mixed + e + words[i];
        e = d, d = c, c = rotate_left(b, 30), b = a, a = next;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
}

// What ZooKeeper's scheme digest is made with: broken where collisions matter, which is not here.
COORD_RARE
Bytes sha1(BytesView bytes) {
    std::uint32_t state[5] = {0x67452301u, 0xEFCDAB89u, 0x98BADCFEu, 0x10325476u, 0xC3D2E1F0u};
    const std::uint64_t bits = std::uint64_t{bytes.size()} * 8;
    for (; bytes.size() >= sha1_block_bytes; bytes.remove_prefix(sha1_block_bytes)) {
        sha1_block(bytes.substr(0, sha1_block_bytes), state);
    }
    Bytes last(bytes);
    last.push_back('\x80');
    while (last.size() % sha1_block_bytes != sha1_block_bytes - 8) last.push_back('\0');
    Writer(last).u64(bits);
    for (BytesView rest = last; !rest.empty(); rest.remove_prefix(sha1_block_bytes)) {
        sha1_block(rest.substr(0, sha1_block_bytes), state);
    }
    Bytes digest;
    for (const std::uint32_t word : state) Writer(digest).u32(word);
    return digest;
}

COORD_RARE
Bytes base64(BytesView bytes) {
    constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    Bytes text;
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        std::uint32_t three = 0;
        for (std::size_t k = i; k < i + 3; k++) {
            three = three << 8 | (k < bytes.size() ? static_cast<unsigned char>(bytes[k]) : 0u);
        }
        for (unsigned k = 0; k < 4; k++) {
            const bool is_filled = i + k > bytes.size();
            text.push_back(is_filled ? '=' : digits[three >> (18 - 6 * k) & 63]);
        }
    }
    return text;
}

}  // namespace detail

// =================================================================================================
// Part Two, chapter 3: Tree
// =================================================================================================
// A node is one block of memory: its fields, its path, its data. A 32-bit index names it, and a
// table of pointers leads from there to the block, which may move; index 0 is nobody, index 1 the
// root. Children of a node form a treap in order of their names, through links in the nodes
// themselves.
//
// A path is found through a hash table of 256 parts, each of which grows by itself: no create ever
// waits until a million entries have moved. Its entries are pointers, so that a look-up waits for
// two things one after the other, a line of the table and the node. The root is in no part: "" and
// "/" are short enough to be known by sight.

namespace detail {

constexpr std::uint32_t no_index = 0;
constexpr std::uint32_t root_index = 1;
constexpr std::uint32_t slab_size_min = 16;  // an empty tree is small: simulations hold many
constexpr std::uint32_t slab_size = 4096;
constexpr std::uint64_t link_work = 4;  // to make a node, or to take one out, beside a set
constexpr std::uint64_t counted_per_work = 4;  // nodes that are looked at for a quota
constexpr std::size_t tree_tables = 256;
constexpr std::uint64_t creations_max = std::uint64_t{1} << 61;  // twice as many fit in a cversion
constexpr std::size_t sequence_digits_max = 19;
constexpr std::size_t scratch_bytes_kept = 65536;  // of its memory, from one time to the next
constexpr char undo_counts = 0;                 // no kind of record that is undone, and no '/';
constexpr char undo_acl = 1;                    // nor is this
constexpr std::uint32_t place_bits = 29;        // of a hash, that say where an entry is at home
constexpr std::uint32_t null_length = UINT32_MAX;  // FORMAT, of data that is null
constexpr unsigned kind_with_acl = 4;              // FORMAT, added to the kind of a node

// RETURNS the size in bytes of the character at the front of text, or 0 where a path must not hold
// it: control characters, surrogates, private use, specials, and all that is not in the basic
// plane or not UTF-8 in its shortest form.
static std::size_t path_character(BytesView text) {
    COORD_ASSERT(!text.empty());
    const auto byte = [text](std::size_t i) -> std::uint32_t {
        return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
    };
    const auto continues = [&byte](std::size_t i) { return (byte(i) & 0xC0) == 0x80; };
    const std::uint32_t first = byte(0);
    if (first < 0x80) return first >= 0x20 && first != 0x7F ? 1 : 0;
    if (first < 0xC2 || first >= 0xF0 || !continues(1)) return 0;
    if (first < 0xE0) return first > 0xC2 || byte(1) >= 0xA0 ? 2 : 0;  // U+0080-U+009F
    if (!continues(2)) return 0;
    const std::uint32_t code = (first & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    if (code < 0x800) return 0;
    return (code >= 0xD800 && code <= 0xF8FF) || code >= 0xFFF0 ? 0 : 3;
}

// Nearly all characters of paths are: nothing more is asked about them.
static bool is_plain(unsigned char byte) { return byte >= '/' && byte < 0x7F; }

static bool is_name(BytesView characters) {
    return !characters.empty() && characters != "." && characters != "..";
}

static bool is_valid_name(BytesView node_name) {
    for (std::size_t i = 0; i < node_name.size();) {
        const auto first = static_cast<unsigned char>(node_name[i]);
        const std::size_t size =
            first == '/' ? 0 : is_plain(first) ? 1 : path_character(node_name.substr(i));
        if (size == 0) return false;
        i += size;
    }
    return is_name(node_name);
}

// Empties what is used again, and keeps no more of its memory than is usual.
static void give_back(Bytes& scratch) {
    scratch.clear();
    if (scratch.capacity() > scratch_bytes_kept) Bytes().swap(scratch);
}

inline bool starts_with(BytesView text, BytesView prefix) {
    return text.substr(0, prefix.size()) == prefix;
}

static bool is_mode(CreateMode mode) {
    return mode >= CreateMode::persistent && mode <= CreateMode::persistent_sequential_with_ttl;
}

static bool is_built_in(BytesView path) {
    return path == "/" || path == "/zookeeper" || path == "/zookeeper/config" ||
           path == "/zookeeper/quota";
}

// Children that were there from the start and that no creation counts.
static std::uint32_t built_in_children(BytesView path) {
    return path == "/" ? 1 : path == "/zookeeper" ? 2 : 0;
}

// A state (chapter 4) is a row of records: u8 kind, u32 length of the rest, the rest.
enum class StateRecord : std::uint8_t {  // FORMAT
    end = 0,
    head = 1,
    session = 2,
    node = 3,
    voter = 4,
};
constexpr std::size_t state_record_header_bytes = 5;

inline std::size_t open_state_record(StateRecord kind, Bytes& out) {
    const std::size_t start = out.size();
    Writer writer(out);
    writer.u8(static_cast<std::uint8_t>(kind)), writer.u32(0);
    return start;
}

inline void close_state_record(std::size_t start, Bytes& out) {
    const std::size_t length = out.size() - start - state_record_header_bytes;
    Writer(out).patch_u32(start + 1, static_cast<std::uint32_t>(length));
}

inline void write_data(Writer& out, BytesView data) {
    if (is_null(data)) return out.u32(null_length);
    out.bytes(data);
}

inline BytesView read_data(Reader& in, std::size_t size_max) {
    Reader ahead = in;
    if (ahead.u32() != null_length) return in.bytes(size_max);
    in = ahead;
    return null_data;
}

// printf's %010lld, without its locale and its size.
static void append_sequence(std::uint64_t number, Bytes& out) {
    COORD_ASSERT(number <= creations_max);
    char digits[sequence_digits_max];
    std::size_t first = sequence_digits_max;
    while (number > 0 || first > sequence_digits_max - 10) {
        digits[--first] = static_cast<char>('0' + number % 10);
        number /= 10;
    }
    out.append(digits + first, sequence_digits_max - first);
}

// Where a child's name begins in its path.
static std::size_t name_offset(BytesView parent_path) {
    COORD_ASSERT(!parent_path.empty());
    return parent_path.size() == 1 ? 1 : parent_path.size() + 1;
}

// -1 stands for any version, so no node ever has it.
static std::int32_t next_version(std::int32_t version) {
    COORD_ASSERT(version != any_version);
    if (version == INT32_MAX) return INT32_MIN;
    return version == -2 ? 0 : version + 1;
}

}  // namespace detail

NodeLife::NodeLife(CreateMode mode, SessionId session, std::int64_t ttl) {
    COORD_ASSERT(detail::is_mode(mode));
    if (is_ephemeral(mode)) kind = NodeKind::ephemeral, owner = session;
    if (mode == CreateMode::container) kind = NodeKind::container;
    if (has_ttl(mode)) kind = NodeKind::ttl, ttl_ms = ttl;
}

bool is_valid_path(BytesView path) {
    if (path.empty() || path[0] != '/') return false;
    if (path.size() == 1) return true;
    std::size_t start = 1;  // of the name
    for (std::size_t i = 1; i < path.size();) {
        const auto first = static_cast<unsigned char>(path[i]);
        if (first == '/') {
            if (!detail::is_name(path.substr(start, i - start))) return false;
            start = i + 1;
        }
        const std::size_t size =
            detail::is_plain(first) ? 1 : detail::path_character(path.substr(i));
        if (size == 0) return false;
        i += size;
    }
    return detail::is_name(path.substr(start));
}

BytesView parent_path(BytesView path) {
    const std::size_t slash = path.rfind('/');
    COORD_ASSERT(slash != BytesView::npos);
    return path.substr(0, (std::max)(slash, std::size_t{1}));
}

BytesView node_name(BytesView path) {
    const std::size_t slash = path.rfind('/');
    return slash == BytesView::npos ? path : path.substr(slash + 1);
}

std::optional<std::int64_t> sequence_of(BytesView name_or_path) {
    std::size_t first = name_or_path.size();
    while (first > 0 && name_or_path[first - 1] >= '0' && name_or_path[first - 1] <= '9') first--;
    const BytesView digits = name_or_path.substr(first);
    if (digits.size() < 10 || digits.size() > detail::sequence_digits_max) return std::nullopt;
    std::uint64_t number = 0;
    for (const char digit : digits) number = number * 10 + static_cast<std::uint64_t>(digit - '0');
    if (number > static_cast<std::uint64_t>(INT64_MAX)) return std::nullopt;
    return static_cast<std::int64_t>(number);
}

// The layout is the cost of a node: with its pointer in a slab (8) and its share of the hash table
// (10 to 16) it must stay within 120 bytes. What a walk through a family needs comes last, beside
// the path.
struct Tree::Node {
    Zxid czxid;
    Zxid mzxid;
    Zxid pzxid;
    std::int64_t ctime_ms = 0;
    std::int64_t mtime_ms = 0;
    std::uint64_t owner_or_creations = 0;  // one word for both: T4
    std::int32_t version = 0;
    std::uint32_t acl = 0;            // T9: the number of the list with the aversion; mostly 0
    std::uint32_t data_length = 0;
    std::uint32_t count_or_left = 0;  // of children; or, T10, as left is, among a session's
    std::uint32_t parent = 0;         // 0 for the root alone; T1
    std::uint32_t root_or_right = 0;  // the treap of the children; or as right
    std::uint32_t left = 0;           // in the treap of the parent: names before this one's
    std::uint32_t right = 0;          // and after
    std::uint32_t capacity = 0;       // of path and data together
    std::uint32_t path_length = 0;
    std::uint32_t index = 0;
    std::uint32_t hash : detail::place_bits;  // of the path, what says where the entry is
    std::uint32_t kind_number : 2;    // T7; a ttl stands beside the tree, in reapable_
    std::uint32_t is_null : 1;        // of the data

    Node() : hash(0), kind_number(0), is_null(0) {}
    NodeKind kind() const { return static_cast<NodeKind>(kind_number); }
    bool is_owned() const { return kind() == NodeKind::ephemeral; }  // by a session
    bool is_listed() const { return kind() >= NodeKind::container; }
    SessionId owner() const { return SessionId{is_owned() ? owner_or_creations : 0}; }
    std::uint32_t child_count() const { return is_owned() ? 0 : count_or_left; }  // T4
    std::uint32_t child_root() const { return is_owned() ? 0 : root_or_right; }
    // Of children, ever: the next sequence number; T3.
    std::uint64_t creations() const { return is_owned() ? 0 : owner_or_creations; }
    void set_life(NodeKind kind, SessionId owner) {
        COORD_ASSERT((kind == NodeKind::ephemeral) == (owner != SessionId{}));
        COORD_ASSERT(owner_or_creations == 0 || owner == SessionId{});  // T4
        kind_number = static_cast<std::uint32_t>(kind) & 3u;
        if (owner != SessionId{}) owner_or_creations = owner.value;
    }
    const char* bytes() const { return reinterpret_cast<const char*>(this + 1); }
    char* bytes() { return reinterpret_cast<char*>(this + 1); }
    BytesView path() const { return {bytes(), path_length}; }
    BytesView data() const { return data_after(path_length); }
    BytesView data_after(std::size_t length) const {
        return is_null != 0 ? null_data : BytesView{bytes() + length, data_length};
    }
};

// A node apart from a tree, as a record of it has it.
struct Tree::Record {
    Node node;
    BytesView path;
    BytesView data;
    BytesView acl;
    std::int64_t ttl_ms = 0;
    std::int32_t aversion = 0;
    std::uint64_t acl_digest = 0;  // of the list
};

// ---- Access

namespace detail {

constexpr std::size_t acl_scheme_bytes_max = 64;
constexpr std::uint64_t acl_seed = 0x61636c;
constexpr BytesView open_bytes{"\0\0\0\x1f\0\0\0\5world\0\0\0\6anyone", 23};
constexpr BytesView read_only_bytes{"\0\0\0\1\0\0\0\5world\0\0\0\6anyone", 23};

// The most that an ACL takes, or the identities of a session; and no less than the list that every
// tree begins with.
COORD_RARE
static std::size_t acl_bytes_max(const Limits& limits) {
    const std::uint64_t most = (std::max)(limits.acl_entries_max,
                                          limits.identities_per_session_max);
    const std::uint64_t each = 12 + acl_scheme_bytes_max + std::uint64_t{limits.acl_id_bytes_max};
    const bool is_much = most != 0 && each > INT32_MAX / most;
    const std::uint64_t bytes = is_much ? std::uint64_t{INT32_MAX} : most * each;
    return (std::max)(static_cast<std::size_t>(bytes), read_only_bytes.size());
}

// RETURNS false at the end, or where the bytes are none that an ACL has.
static bool read_entry(Reader& in, Acl::Entry& entry) {
    if (in.left() == 0) return false;
    entry.permissions = in.u32();
    entry.scheme = in.bytes(in.left());
    entry.id = in.bytes(in.left());
    return in.ok();
}

COORD_RARE
static void write_entry(const Acl::Entry& entry, Bytes& out) {
    Writer writer(out);
    writer.u32(entry.permissions), writer.bytes(entry.scheme), writer.bytes(entry.id);
}

COORD_RARE
static bool has_entry(BytesView acl, const Acl::Entry& sought) {
    Reader in(acl);
    Acl::Entry entry;
    while (read_entry(in, entry)) {
        if (entry.permissions == sought.permissions && entry.scheme == sought.scheme &&
            entry.id == sought.id) {
            return true;
        }
    }
    return false;
}

// A number of at most so many digits, which is all of the text.
COORD_RARE
static bool read_number(BytesView text, unsigned base, std::size_t digits_max,
                        std::uint32_t& number) {
    number = 0;
    if (text.empty() || text.size() > digits_max) return false;
    for (const char digit : text) {
        const auto code = static_cast<unsigned char>(digit);
        const unsigned letter = (code | 0x20u) - 'a' + 10u;
        const unsigned value = code >= '0' && code <= '9' ? code - '0' : letter;
        if (value >= base || (code < '0' || (code > '9' && letter < 10))) return false;
        number = number * base + value;
    }
    return true;
}

// Of text, what is before the next separator; text goes on after it.
COORD_RARE
static BytesView cut_field(BytesView& text, char separator) {
    const std::size_t end = (std::min)(text.find(separator), text.size());
    const BytesView field = text.substr(0, end);
    text.remove_prefix((std::min)(end + 1, text.size()));
    return field;
}

COORD_RARE
static bool read_address_v4(BytesView text, Bytes& address) {
    unsigned dots = 0;
    for (const char each : text) dots += each == '.' ? 1u : 0u;
    if (dots != 3 || text.back() == '.') return false;
    for (unsigned i = 0; i < 4; i++) {
        std::uint32_t number = 0;
        if (!read_number(cut_field(text, '.'), 10, 3, number) || number > 255) return false;
        address.push_back(static_cast<char>(number));
    }
    return true;
}

// Groups of one side of a "::", or of all where there is none; a v4 address may end them.
COORD_RARE
static bool read_groups(BytesView text, bool is_end, Bytes& address) {
    if (!text.empty() && text.back() == ':') return false;
    while (!text.empty()) {
        const BytesView group = cut_field(text, ':');
        std::uint32_t number = 0;
        if (is_end && text.empty() && group.find('.') != BytesView::npos) {
            return read_address_v4(group, address);
        }
        if (!read_number(group, 16, 4, number)) return false;
        address.push_back(static_cast<char>(number >> 8));
        address.push_back(static_cast<char>(number & 0xFF));
    }
    return true;
}

// RFC 4291, 2.2: four bytes, or sixteen. RETURNS none where it is no address.
COORD_RARE
static Bytes read_address(BytesView text) {
    Bytes front, back;
    if (text.empty() || text.size() > 45) return {};
    if (text.find(':') == BytesView::npos) return read_address_v4(text, front) ? front : Bytes();
    const std::size_t gap = text.find("::");
    const bool is_whole = gap == BytesView::npos;
    const BytesView before = text.substr(0, gap);
    const BytesView after = is_whole ? BytesView() : text.substr(gap + 2);
    if (!read_groups(before, is_whole, front) || !read_groups(after, true, back)) return {};
    const std::size_t size = front.size() + back.size();
    COORD_ASSERT(size % 2 == 0);
    if (is_whole ? size != 16 : size > 14) return {};
    return front.append(16 - size, '\0').append(back);
}

// An address, or one with "/bits". RETURNS false where it is none.
COORD_RARE
static bool read_network(BytesView text, Bytes& address, std::uint32_t& bits) {
    const std::size_t slash = text.find('/');
    address = read_address(text.substr(0, slash));
    bits = static_cast<std::uint32_t>(address.size() * 8);
    if (address.empty() || slash == BytesView::npos) return !address.empty();
    const std::uint32_t most = bits;
    return read_number(text.substr(slash + 1), 10, 3, bits) && bits <= most;
}

// Of two addresses, whether they have these bits in common.
static bool is_in_network(BytesView address, BytesView network, std::uint32_t bits) {
    if (address.size() != network.size()) return false;
    const std::size_t whole = bits / 8;
    if (address.substr(0, whole) != network.substr(0, whole)) return false;
    const int differ = bits % 8 == 0 ? 0 : address[whole] ^ network[whole];
    return (differ & 0xFF) >> (8 - bits % 8) == 0;
}

// Whether the network has the address of one of these identities. Each address is read once, for
// all the networks of a list.
COORD_RARE
static bool is_any_in_network(BytesView identities, std::vector<Bytes>& addresses,
                              BytesView network_text) {
    Bytes network;
    std::uint32_t bits = 0;
    if (!read_network(network_text, network, bits)) return false;
    if (addresses.empty()) {
        Reader each(identities);
        Acl::Entry identity;
        while (read_entry(each, identity)) {
            if (identity.scheme == "ip") addresses.push_back(read_address(identity.id));
        }
    }
    for (const Bytes& address : addresses) {
        if (is_in_network(address, network, bits)) return true;
    }
    return false;
}

// "user:" and what does not have a ':', but at its end, as ZooKeeper takes it.
COORD_RARE
static bool is_digest_id(BytesView id) {
    while (!id.empty() && id.back() == ':') id.remove_suffix(1);
    const std::size_t colon = id.find(':');
    return colon != BytesView::npos && id.find(':', colon + 1) == BytesView::npos;
}

COORD_RARE
static bool is_own_scheme(BytesView scheme) {
    if (scheme.empty() || scheme.size() > acl_scheme_bytes_max) return false;
    for (const char each : scheme) {
        if (each <= ' ' || each > '~' || each == ':') return false;
    }
    return scheme != "world" && scheme != "auth" && scheme != "digest" && scheme != "ip" &&
           scheme != "super";
}

// The same wherever it is asked: which schemes of their own replicas have is not asked here.
COORD_RARE
static bool is_sound_id(BytesView scheme, BytesView id) {
    Bytes network;
    std::uint32_t bits = 0;
    if (scheme == "world") return id == "anyone";
    if (scheme == "digest") return is_digest_id(id);
    if (scheme == "ip") return read_network(id, network, bits);
    return is_own_scheme(scheme) && !id.empty();
}

// Of an ACL that somebody gives: "auth" may be in it.
COORD_RARE
static Errc judge_acl(BytesView acl, const Limits& limits) {
    Reader in(acl);
    Acl::Entry entry;
    std::uint32_t entries = 0;
    for (; read_entry(in, entry); entries++) {
        if (entries == limits.acl_entries_max) return Errc::too_many;
        if (entry.id.size() > limits.acl_id_bytes_max) return Errc::too_large;
        if ((entry.permissions & ~permission::all) != 0) return Errc::invalid_acl;
        if (entry.scheme != "auth" && !is_sound_id(entry.scheme, entry.id)) {
            return Errc::invalid_acl;
        }
    }
    if (!in.done()) return Errc::marshalling_error;
    return entries > 0 ? Errc::ok : Errc::invalid_acl;
}

// Of one that a node has. That of /zookeeper/config is there whatever the limits are.
COORD_RARE
static bool is_kept_acl(BytesView acl, const Limits& limits) {
    if (acl == read_only_bytes) return true;
    Reader in(acl);
    Acl::Entry entry;
    while (read_entry(in, entry)) {
        if (entry.scheme == "auth") return false;
    }
    return judge_acl(acl, limits) == Errc::ok && acl != open_bytes;
}

// Identities, as a request to add some has them, and a session.
COORD_RARE
static Errc judge_identities(BytesView identities, const Limits& limits) {
    Reader in(identities);
    Acl::Entry entry;
    std::uint32_t entries = 0;
    for (; read_entry(in, entry); entries++) {
        if (entries == limits.identities_per_session_max) return Errc::too_many;
        if (entry.id.size() > limits.acl_id_bytes_max) return Errc::too_large;
        const bool is_super = entry.scheme == "super" && entry.id.empty();
        const bool is_known = is_super || (entry.scheme == "digest" && is_digest_id(entry.id)) ||
                              (entry.scheme == "ip" && !read_address(entry.id).empty()) ||
                              (is_own_scheme(entry.scheme) && !entry.id.empty());
        if (entry.permissions != 0 || !is_known) return Errc::auth_failed;
    }
    return in.done() && entries > 0 ? Errc::ok : Errc::marshalling_error;
}

static std::uint64_t hash_of_identities(BytesView identities) {
    return identities.empty() ? 0 : hash64(identities, acl_seed) | 1;
}

// ZooKeeper's PrepRequestProcessor.checkACL.
COORD_RARE
bool is_permitted(BytesView acl, BytesView identities, std::uint32_t permissions) {
    Acl::Entry entry, identity;
    Reader all(identities);
    while (read_entry(all, identity)) {
        if (identity.scheme == "super") return true;
    }
    Reader in(acl);
    std::vector<Bytes> addresses;
    while (read_entry(in, entry)) {
        if ((entry.permissions & permissions) == 0) continue;
        if (entry.scheme == "world") return true;
        const bool is_network = entry.scheme == "ip";
        if (is_network && is_any_in_network(identities, addresses, entry.id)) return true;
        Reader each(identities);
        while (!is_network && read_entry(each, identity)) {
            if (identity.scheme == entry.scheme && identity.id == entry.id) return true;
        }
    }
    return false;
}

}  // namespace detail

COORD_RARE
Acl Acl::from(BytesView bytes) {
    Acl acl;
    acl.bytes_.assign(bytes);
    return acl;
}

COORD_RARE
Acl& Acl::add(std::uint32_t permissions, BytesView scheme, BytesView id) {
    detail::write_entry({permissions, scheme, id}, bytes_);
    return *this;
}

COORD_RARE
std::size_t Acl::size() const {
    Reader in(bytes_);
    Entry entry;
    std::size_t count = 0;
    while (detail::read_entry(in, entry)) count += 1;
    return count;
}

COORD_RARE
Acl::Entry Acl::operator[](std::size_t i) const {
    Reader in(bytes_);
    Entry entry;
    for (std::size_t k = 0; k <= i; k++) {
        const bool is_there = detail::read_entry(in, entry);
        COORD_ASSERT(is_there);
    }
    return entry;
}

COORD_RARE
Acl open_acl() { return Acl::from(detail::open_bytes); }
COORD_RARE
Acl creator_acl() { return Acl(permission::all, "auth", ""); }
COORD_RARE
Acl read_only_acl() { return Acl::from(detail::read_only_bytes); }

COORD_RARE
Bytes digest_id(BytesView credential) {
    Bytes id(credential.substr(0, credential.find(':')));
    return id.append(":").append(detail::base64(detail::sha1(credential)));
}

// T9. Number 0 is what is open to all and was never set; it counts nobody.
struct Tree::Acls {
    struct Entry {
        const Bytes* key = nullptr;  // i32 aversion and the list, no bytes where it is open
        std::uint32_t users = 0;
        std::int32_t aversion = 0;
        std::uint64_t digest = 0;    // of the list; 0 where it is open
        bool hides = false;          // somebody may not read
        BytesView list() const { return BytesView(*key).substr(4); }
    };
    std::vector<Entry> entries = std::vector<Entry>(1);
    std::vector<std::uint32_t> free;
    std::map<Bytes, std::uint32_t, std::less<>> numbers;
    std::size_t hiding = 0;  // nodes
    Bytes key;

    const Entry& at(std::uint32_t number) const {
        COORD_ASSERT(number < entries.size());
        COORD_ASSERT(number == 0 || entries[number].users > 0);
        return entries[number];
    }
    std::uint32_t find(BytesView list, std::int32_t aversion) {
        key.clear();
        Writer out(key);
        out.i32(aversion), out.raw(list);
        const auto found = numbers.find(BytesView(key));
        return found == numbers.end() ? 0 : found->second;
    }
    // The number for one node more.
    std::uint32_t take(BytesView list, std::int32_t aversion) {
        COORD_ASSERT(list != detail::open_bytes);
        if (list.empty() && aversion == 0) return 0;
        std::uint32_t number = find(list, aversion);
        if (number == 0) number = add(list, aversion);
        entries[number].users += 1;
        hiding += entries[number].hides ? 1u : 0u;
        return number;
    }
    COORD_RARE
    std::uint32_t add(BytesView list, std::int32_t aversion) {
        std::uint32_t number = static_cast<std::uint32_t>(entries.size());
        if (free.empty()) {
            entries.emplace_back();
        } else {
            number = free.back();
            free.pop_back();
        }
        const auto added = numbers.emplace(key, number);
        COORD_ASSERT(added.second);
        Entry& entry = entries[number];
        COORD_ASSERT(entry.users == 0 && number > 0);
        entry.key = &added.first->first, entry.aversion = aversion;
        entry.digest = list.empty() ? 0 : hash64(list, detail::acl_seed);
        entry.hides = !permits(list, {}, permission::read);
        return number;
    }
    void drop(std::uint32_t number) {
        if (number == 0) return;
        Entry& entry = entries[number];
        COORD_ASSERT(entry.users > 0);
        hiding -= entry.hides ? 1u : 0u;
        entry.users -= 1;
        if (entry.users > 0) return;
        const auto found = numbers.find(*entry.key);
        COORD_ASSERT(found != numbers.end());
        entry = Entry();
        numbers.erase(found);
        free.push_back(number);
    }
    COORD_RARE
    void audit(const std::vector<std::uint32_t>& counted) const {
        std::size_t hidden = 0, used = 0;
        for (std::size_t i = 0; i < entries.size(); i++) {
            COORD_ASSERT(entries[i].users == counted[i]);
            COORD_ASSERT((entries[i].key != nullptr) == (counted[i] > 0));
            hidden += entries[i].hides ? counted[i] : 0;
            used += counted[i] > 0 ? 1u : 0u;
        }
        COORD_ASSERT(hidden == hiding && used == numbers.size());
        COORD_ASSERT(used + free.size() + 1 == entries.size());
    }
};

inline BytesView Tree::acl_of(const Node& node) const {
    return node.acl == 0 ? BytesView() : acls_->at(node.acl).list();
}

inline std::int32_t Tree::aversion_of(const Node& node) const {
    return node.acl == 0 ? 0 : acls_->at(node.acl).aversion;
}

COORD_RARE
bool Tree::can_hold(BytesView acl, std::uint32_t acls_max) const {
    return acl.empty() || acls_->numbers.size() < acls_max || acls_->find(acl, 0) != 0;
}

bool Tree::hides_some() const { return acls_->hiding > 0; }

COORD_RARE
BytesView Tree::parent_acl(BytesView path) const {
    const Node* const node = seek(path);
    return node == nullptr || node->parent == detail::no_index ? BytesView()
                                                               : acl_of(at(node->parent));
}

// ---- Nodes

inline Tree::Node& Tree::at(std::uint32_t node) const {
    COORD_ASSERT(node != detail::no_index);
    COORD_ASSERT(node < indices_used_);
    return *slabs_[node / detail::slab_size][node % detail::slab_size];
}

namespace detail {

// Blocks of 16 * number + 8 bytes: what a common allocator has left of its own 16 byte steps.
static std::size_t size_number(std::size_t bytes) { return (bytes + 7) / 16; }
static std::size_t size_of_number(std::size_t number) { return number * 16 + 8; }
constexpr std::size_t spares_kept = 1024;

}  // namespace detail

// path and data may be views into a node that the caller is about to put by.
Tree::Node* Tree::make_node(const Node& fields, BytesView path, BytesView data,
                            std::size_t capacity) {
    COORD_ASSERT(path.size() + data.size() <= capacity);
    COORD_ASSERT(capacity <= UINT32_MAX);
    const std::size_t size = detail::size_number(sizeof(Node) + capacity);
    void* memory = size < spare_sizes ? spares_[size] : nullptr;
    if (memory != nullptr) {
        spares_[size] = static_cast<Spare*>(memory)->next, spare_count_ -= 1;
    } else {
        memory = ::operator new(detail::size_of_number(size));
    }
    Node* const node = new (memory) Node(fields);
    node->capacity = static_cast<std::uint32_t>(capacity);
    node->path_length = static_cast<std::uint32_t>(path.size());
    node->data_length = static_cast<std::uint32_t>(data.size());
    node->is_null = coord::is_null(data) ? 1 : 0;
    std::memcpy(node->bytes(), path.data(), path.size());
    if (!data.empty()) std::memcpy(node->bytes() + path.size(), data.data(), data.size());
    return node;
}

void Tree::put_by(Node* node) {
    const std::size_t size = detail::size_number(sizeof(Node) + node->capacity);
    if (size >= spare_sizes) return ::operator delete(node);
    spares_[size] = new (node) Spare{spares_[size]};
    spare_count_ += 1;
}

void Tree::give_back(std::uint32_t count) {
    for (; count > 0 && spare_count_ > detail::spares_kept; spare_turn_ += 1) {
        Spare*& spares = spares_[spare_turn_ % spare_sizes];
        for (; spares != nullptr && count > 0 && spare_count_ > detail::spares_kept; count--) {
            Spare* const spare = spares;
            spares = spare->next, spare_count_ -= 1;
            ::operator delete(spare);
        }
        if (count == 0) return;  // and on with the same size
    }
}

bool Tree::release(std::uint32_t count) {
    if (spare_count_ > detail::spares_kept) return give_back(count), false;
    for (; count > 0 && indices_used_ > 0; count--) {
        indices_used_ -= 1;
        Node* const node = slot(indices_used_);
        if (node != nullptr && node->is_listed()) reapable_.erase(indices_used_);
        if (node != nullptr) acls_->drop(node->acl);
        ::operator delete(node);
    }
    return indices_used_ == 0;
}

// The first slab starts small and is replaced until it has full size; the others never move.
void Tree::grow_slabs() {
    COORD_ASSERT(indices_used_ == indices_capacity_);
    COORD_ASSERT(indices_capacity_ <= UINT32_MAX - detail::slab_size);
    if (indices_capacity_ >= detail::slab_size) {
        slabs_.emplace_back(new Node*[detail::slab_size]());
        indices_capacity_ += detail::slab_size;
        return;
    }
    const std::uint32_t larger = (std::max)(detail::slab_size_min, indices_capacity_ * 2);
    detail::Owned<Node*[]> slab(new Node*[larger]());
    if (slabs_.empty()) slabs_.emplace_back(static_cast<Node**>(nullptr));
    std::copy_n(slabs_[0].get(), indices_used_, slab.get());
    slabs_[0] = std::move(slab), indices_capacity_ = larger;
}

std::uint32_t Tree::take_index() {
    if (!free_indices_.empty()) {
        const std::uint32_t index = free_indices_.back();
        free_indices_.pop_back();
        return index;
    }
    if (indices_used_ == indices_capacity_) grow_slabs();
    return indices_used_++;
}

inline Tree::Node* Tree::slot(std::uint32_t index) const {
    return slabs_[index / detail::slab_size][index % detail::slab_size];
}

// RETURNS a node that can be found; its place among its parent's children and the digest are the
// caller's.
std::uint32_t Tree::add_node(const Node& fields, BytesView path, BytesView data) {
    const std::uint32_t index = take_index();
    Node* const node = place_node(index, fields, path, data);
    if (index != detail::root_index) insert_entry(hash64(path, seed_), node);
    return index;
}

Tree::Node* Tree::place_node(std::uint32_t index, const Node& fields, BytesView path,
                             BytesView data) {
    COORD_ASSERT(!path.empty() && path[0] == '/');
    COORD_ASSERT(data.size() <= static_cast<std::size_t>(INT32_MAX));
    Node* const node = make_node(fields, path, data, path.size() + data.size());
    node->index = index;
    slabs_[index / detail::slab_size][index % detail::slab_size] = node;
    size_ += 1, bytes_ += path.size() + data.size();  // T11
    return node;
}

// ---- From a path to a node

namespace detail {

static void prefetch([[maybe_unused]] const void* memory) {
#ifdef __GNUC__
    __builtin_prefetch(memory);
#endif
}

// REQUIRES bytes != 0. RETURNS the number of the lowest byte that is not 0.
static unsigned lowest_byte(std::uint64_t bytes) {
#ifdef __GNUC__
    return static_cast<unsigned>(__builtin_ctzll(bytes)) / 8;
#else
    unsigned byte = 0;
    while ((bytes >> byte * 8 & 0xFF) == 0) byte++;
    return byte;
#endif
}

}  // namespace detail

// A cache line of entries. A look-up compares all tags at once, without a branch that could be
// predicted wrong, so that the processor runs ahead into the next look-up; and one entry in 255
// that is not meant has the tag that is. What does not fit into its home goes to the next bucket
// that has room, and each bucket counts what went past it: where nothing did, the search ends.
struct alignas(64) Tree::Bucket {
    static constexpr unsigned entries = 7;
    static constexpr std::uint64_t each = 0x0001010101010101u;  // a byte for each entry
    static constexpr std::uint64_t one_passed = std::uint64_t{1} << 56;
    Node* node[entries] = {};
    std::uint64_t tags = 0;  // a byte for each entry, 0 where it is empty; on top what went past

    // RETURNS the top bit of the byte of each entry whose tag this is.
    std::uint64_t matches(unsigned tag) const {
        const std::uint64_t differences = tags ^ each * tag;
        return ~((differences | each * 0x80) - each) & ~differences & each * 0x80;
    }
    std::uint64_t vacant() const { return matches(0); }
    unsigned passed() const { return static_cast<unsigned>(tags >> 56); }
    // A count that has come to 255 stays there: it is not known any more how much went past.
    void count_passed(bool more) {
        COORD_ASSERT(more || passed() > 0);
        if (passed() < 255) tags = more ? tags + one_passed : tags - one_passed;
    }
    unsigned entry_of(const Node* sought) const {  // entries where it is not here
        unsigned i = 0;
        while (i < entries && node[i] != sought) i++;
        return i;
    }
};

struct Tree::Table {
    detail::Owned<Bucket[]> buckets;
    std::uint32_t bucket_count = 0;
    std::uint32_t size = 0;  // entries; at most seven eighths of what fits

    // Of a hash, the top byte chooses the table, the byte after it is the tag, and place_bits of
    // the lower half say where the entry is at home.
    static unsigned tag_of(std::uint64_t hash) {
        const auto tag = static_cast<unsigned>(hash >> 48 & 0xFF);
        return tag == 0 ? 1 : tag;
    }
    static std::uint32_t place_of(std::uint64_t hash) {
        return static_cast<std::uint32_t>(hash) >> (32 - detail::place_bits);
    }
    std::uint32_t home(std::uint32_t place) const {
        const std::uint64_t scaled = std::uint64_t{place} * bucket_count;
        return static_cast<std::uint32_t>(scaled >> detail::place_bits);
    }
    std::uint32_t after(std::uint32_t bucket) const {
        return bucket + 1 == bucket_count ? 0 : bucket + 1;
    }
    void put(std::uint32_t place, unsigned tag, Node* node) {
        std::uint32_t i = home(place);
        for (; buckets[i].vacant() == 0; i = after(i)) buckets[i].count_passed(true);
        const unsigned entry = detail::lowest_byte(buckets[i].vacant());
        COORD_ASSERT(buckets[i].node[entry] == nullptr);
        buckets[i].node[entry] = node;
        buckets[i].tags |= std::uint64_t{tag} << entry * 8;
    }
    void prefetch_nodes(std::uint32_t bucket) const {
        for (const Node* node : buckets[bucket].node) {
            if (node != nullptr) detail::prefetch(&node->path_length);
        }
    }
    // RETURNS true where no node has this one's path. Looks at those alone that may.
    bool lacks(std::uint64_t hash, const Node& sought) const {
        for (std::uint32_t i = home(place_of(hash));; i = after(i)) {
            for (std::uint64_t bits = buckets[i].matches(tag_of(hash)); bits != 0;
                 bits &= bits - 1) {
                const Node& node = *buckets[i].node[detail::lowest_byte(bits)];
                if (node.path() == sought.path()) return false;
            }
            if (buckets[i].passed() == 0) return true;
        }
    }
    void prefetch(std::uint64_t hash) const {
        if (bucket_count > 0) detail::prefetch(&buckets[home(place_of(hash))]);
    }
    void reserve(std::uint32_t entries);
    void grow();
    void audit() const;
};

inline Tree::Node* Tree::seek(BytesView path) const {
    if (path.size() <= 1) {
        return path.empty() || path[0] == '/' ? &at(detail::root_index) : nullptr;
    }
    const std::uint64_t hash = hash64(path, seed_);
    const Table& table = tables_[hash >> 56];
    if (table.size == 0) return nullptr;
    const unsigned tag = Table::tag_of(hash);
    for (std::uint32_t i = table.home(Table::place_of(hash));; i = table.after(i)) {
        const Bucket& bucket = table.buckets[i];
        for (std::uint64_t bits = bucket.matches(tag); bits != 0; bits &= bits - 1) {
            Node* const node = bucket.node[detail::lowest_byte(bits)];
            if (node->path() == path) return node;
        }
        if (bucket.passed() == 0) return nullptr;
    }
}

std::uint32_t Tree::locate(BytesView path) const {
    const Node* const node = seek(path);
    return node == nullptr ? detail::no_index : node->index;
}

Tree::Tree(std::uint64_t seed) : seed_(mix64(seed, 0)) {
    static_assert(sizeof(Node) <= 96, "the memory of a node is budgeted");
    reset();
}

Tree::~Tree() { clear(); }

// Room for so many and a quarter more, in a table that is empty.
void Tree::Table::reserve(std::uint32_t entries) {
    COORD_ASSERT(size == 0 && entries > 0);
    const std::uint64_t enough = std::uint64_t{entries} * 10 / (Bucket::entries * 7) + 1;
    bucket_count = static_cast<std::uint32_t>(enough);
    buckets = detail::Owned<Bucket[]>(new Bucket[bucket_count]());
}

// Entries are taken over in the order of the buckets, which is nearly that of their hashes: the
// new ones are written from front to back. The nodes know their hashes, and are fetched ahead.
void Tree::Table::grow() {
    constexpr std::uint32_t ahead = 4;
    Table larger;
    larger.bucket_count = bucket_count + bucket_count / 2 + (bucket_count < 2 ? 1 : 0);
    larger.buckets = detail::Owned<Bucket[]>(new Bucket[larger.bucket_count]());
    for (std::uint32_t i = 0; i < bucket_count; i++) {
        if (i + ahead < bucket_count) prefetch_nodes(i + ahead);
        for (unsigned entry = 0; entry < Bucket::entries; entry++) {
            if (buckets[i].node[entry] == nullptr) continue;
            Node* const node = buckets[i].node[entry];
            larger.put(node->hash, buckets[i].tags >> entry * 8 & 0xFF, node);
            larger.size += 1;
        }
    }
    COORD_ASSERT(larger.size == size);
    COORD_ASSERT(larger.bucket_count > bucket_count);
    *this = std::move(larger);
}

void Tree::insert_entry(std::uint64_t hash, Node* node) {
    COORD_ASSERT(node->index > detail::root_index);
    Table& table = tables_[hash >> 56];
    const std::uint64_t room = std::uint64_t{table.bucket_count} * Bucket::entries;
    if ((std::uint64_t{table.size} + 1) * 8 > room * 7) table.grow();
    node->hash = Table::place_of(hash) & ((1u << detail::place_bits) - 1);
    table.put(node->hash, Table::tag_of(hash), node);
    table.size += 1;
}

// For a node that has moved to another block of memory.
void Tree::replace_entry(std::uint64_t hash, const Node* node, Node* moved) {
    COORD_ASSERT(node->hash == moved->hash);
    Table& table = tables_[hash >> 56];
    std::uint32_t i = table.home(node->hash);
    while (table.buckets[i].entry_of(node) == Bucket::entries) {
        COORD_ASSERT(table.buckets[i].passed() > 0);
        i = table.after(i);
    }
    table.buckets[i].node[table.buckets[i].entry_of(node)] = moved;
}

// No tombstone stays behind: the buckets on the way count one less that went past them.
void Tree::erase_entry(std::uint64_t hash, const Node* node) {
    Table& table = tables_[hash >> 56];
    COORD_ASSERT(table.size > 0);
    std::uint32_t i = table.home(node->hash);
    unsigned entry = table.buckets[i].entry_of(node);
    while (entry == Bucket::entries) {
        table.buckets[i].count_passed(false);
        i = table.after(i);
        entry = table.buckets[i].entry_of(node);
    }
    table.buckets[i].node[entry] = nullptr;
    table.buckets[i].tags &= ~(std::uint64_t{0xFF} << entry * 8);
    table.size -= 1;
}

// ---- Children in order

// A bijection, so that no two nodes have the same.
inline std::uint32_t Tree::priority(std::uint32_t node) const {
    std::uint32_t mixed = node ^ static_cast<std::uint32_t>(seed_);
    mixed = (mixed ^ (mixed >> 16)) * 0x85EBCA6Bu;
    mixed = (mixed ^ (mixed >> 13)) * 0xC2B2AE35u;
    return mixed ^ (mixed >> 16);
}

inline BytesView Tree::child_name(std::uint32_t child, std::size_t offset) const {
    return at(child).path().substr(offset);
}

// The links of a node among the children of its parent, whose path is left out as two are compared;
// and among the nodes of its session.
struct Tree::AmongChildren {
    static std::uint32_t& left(Node& node) { return node.left; }
    static std::uint32_t& right(Node& node) { return node.right; }
};
struct Tree::AmongOwned {
    static std::uint32_t& left(Node& node) { return node.count_or_left; }
    static std::uint32_t& right(Node& node) { return node.root_or_right; }
};

// Both ways on from a node are fetched while it is looked at: the links and the name.
template <class Order>
void Tree::prefetch_below(Node& node, std::size_t offset) const {
    for (const std::uint32_t next : {Order::left(node), Order::right(node)}) {
        if (next == detail::no_index) continue;
        detail::prefetch(&at(next).left);
        detail::prefetch(at(next).bytes() + offset);
    }
}

// Down to where the priority puts it; what was there is split into what comes before it and what
// comes after.
template <class Order>
void Tree::link(std::uint32_t& root, std::uint32_t added, std::size_t offset) {
    const BytesView name = child_name(added, offset);
    const std::uint32_t rank = priority(added);
    std::uint32_t* link = &root;
    while (*link != detail::no_index && priority(*link) > rank) {
        Node& node = at(*link);
        prefetch_below<Order>(node, offset);
        link = name < child_name(*link, offset) ? &Order::left(node) : &Order::right(node);
    }
    std::uint32_t rest = *link;
    *link = added;
    std::uint32_t* before = &Order::left(at(added));
    std::uint32_t* after = &Order::right(at(added));
    while (rest != detail::no_index) {
        prefetch_below<Order>(at(rest), offset);
        const bool is_after = name < child_name(rest, offset);
        std::uint32_t*& edge = is_after ? after : before;
        *edge = rest;
        edge = is_after ? &Order::left(at(rest)) : &Order::right(at(rest));
        rest = *edge;
    }
    *before = detail::no_index, *after = detail::no_index;
}

// Its two subtrees are merged into its place.
template <class Order>
void Tree::unlink(std::uint32_t& root, std::uint32_t removed, std::size_t offset) {
    const BytesView name = child_name(removed, offset);
    std::uint32_t* link = &root;
    while (*link != removed) {
        COORD_ASSERT(*link != detail::no_index);
        Node& node = at(*link);
        prefetch_below<Order>(node, offset);
        link = name < child_name(*link, offset) ? &Order::left(node) : &Order::right(node);
    }
    std::uint32_t before = Order::left(at(removed));
    std::uint32_t after = Order::right(at(removed));
    while (before != detail::no_index && after != detail::no_index) {
        std::uint32_t& upper = priority(before) > priority(after) ? before : after;
        *link = upper;
        link = upper == before ? &Order::right(at(upper)) : &Order::left(at(upper));
        upper = *link;
    }
    *link = before != detail::no_index ? before : after;
    Order::left(at(removed)) = detail::no_index, Order::right(at(removed)) = detail::no_index;
}

void Tree::link_child(std::uint32_t parent, std::uint32_t child) {
    COORD_ASSERT(at(child).parent == parent);
    COORD_ASSERT(at(child).left == 0 && at(child).right == 0);
    COORD_ASSERT(!at(parent).is_owned());  // T4
    const std::size_t offset = detail::name_offset(at(parent).path());
    link<AmongChildren>(at(parent).root_or_right, child, offset);
    if (at(child).is_owned()) link_owned(child);
}

void Tree::unlink_child(std::uint32_t parent, std::uint32_t child) {
    const std::size_t offset = detail::name_offset(at(parent).path());
    if (at(child).is_owned()) unlink_owned(child);
    unlink<AmongChildren>(at(parent).root_or_right, child, offset);
}

void Tree::link_owned(std::uint32_t node) {
    COORD_ASSERT(at(node).count_or_left == 0 && at(node).root_or_right == 0);
    std::uint64_t& listed = detail::number_at(owned_, at(node).owner().value);
    auto root = static_cast<std::uint32_t>(listed);
    link<AmongOwned>(root, node, 0);
    listed = ((listed >> 32) + 1) << 32 | root;
    owned_size_ += 1;
}

void Tree::unlink_owned(std::uint32_t node) {
    const auto found = owned_.find(at(node).owner().value);
    COORD_ASSERT(found != owned_.end());  // T10
    std::uint64_t& listed = found->second;
    auto root = static_cast<std::uint32_t>(listed);
    unlink<AmongOwned>(root, node, 0);
    listed = ((listed >> 32) - 1) << 32 | root;
    COORD_ASSERT((listed == 0) == (root == detail::no_index));
    if (listed == 0) owned_.erase(found);
    owned_size_ -= 1;
}

void Tree::push_left(std::uint32_t node, Stack& stack) const {
    for (; node != detail::no_index; node = at(node).left) stack.push_back(node);
}

// Takes the next node off the stack, which then holds what comes after it: its children, its later
// siblings, and those of its ancestors. Starts with the root on the stack.
std::uint32_t Tree::next_preorder(std::vector<std::uint32_t>& stack) const {
    COORD_ASSERT(!stack.empty());
    const std::uint32_t node = stack.back();
    stack.pop_back();
    push_left(at(node).right, stack);
    push_left(at(node).child_root(), stack);
    return node;
}

// ---- The digest

// The sum over all nodes of three hashes each. One is of what set changes, with the data; one of
// what a child's creation changes in its parent, and one of what set_acl does, so that these cost
// the same however much data the node has. FORMAT: replicas compare digests.
std::uint64_t Tree::own_digest(std::uint64_t path_hash, const Node& node, BytesView data,
                               std::int64_t ttl_ms) {
    using detail::hash_key;
    // Of what its life hangs on one word: no session's id is such a hash.
    std::uint64_t life = node.owner().value;
    if (node.is_listed()) life = mix64(node.kind_number, static_cast<std::uint64_t>(ttl_ms));
    const std::uint64_t version = std::uint64_t{static_cast<std::uint32_t>(node.version)} << 32;
    const auto ctime = static_cast<std::uint64_t>(node.ctime_ms);
    const auto mtime = static_cast<std::uint64_t>(node.mtime_ms);
    const std::uint64_t data_hash = hash64(data, is_null(data) ? 2 : 1);
    const std::uint64_t sum =
        detail::stir(path_hash ^ hash_key[0], data_hash ^ hash_key[1]) +
        detail::stir(node.czxid.value ^ hash_key[2], node.mzxid.value ^ hash_key[3]) +
        detail::stir(ctime ^ hash_key[4], mtime ^ hash_key[5]) +
        detail::stir(life ^ hash_key[6], version ^ hash_key[7]);
    return mix64(sum, path_hash);
}

inline std::uint64_t Tree::own_digest(std::uint64_t path_hash, const Node& node) const {
    return own_digest(path_hash, node, node.data(), ttl_ms_of(node));
}

// Of what is open to all and was never set: nothing.
std::uint64_t Tree::acl_digest(std::uint64_t path_hash, std::uint64_t list_digest,
                               std::int32_t aversion) {
    if (list_digest == 0 && aversion == 0) return 0;
    return mix64(mix64(path_hash, list_digest), static_cast<std::uint32_t>(aversion));
}

inline std::uint64_t Tree::acl_digest(std::uint64_t path_hash, const Node& node) const {
    if (node.acl == 0) return 0;
    const Acls::Entry& entry = acls_->at(node.acl);
    return acl_digest(path_hash, entry.digest, entry.aversion);
}

std::uint64_t Tree::children_digest(std::uint64_t path_hash, const Node& node) {
    using detail::hash_key;
    const std::uint64_t sum =
        detail::stir(path_hash ^ hash_key[1], node.pzxid.value ^ hash_key[0]) +
        detail::stir(node.creations() ^ hash_key[3], node.child_count() ^ hash_key[2]);
    return mix64(path_hash, sum);
}

std::uint64_t Tree::digest_of(const Node& node) const {
    const std::uint64_t path_hash = hash64(node.path(), 0);
    return own_digest(path_hash, node) + children_digest(path_hash, node) +
           acl_digest(path_hash, node);
}

// ---- Reads

inline Stat Tree::stat_of(const Node& node) const {
    Stat stat;
    stat.czxid = node.czxid;
    stat.mzxid = node.mzxid;
    stat.ctime_ms = node.ctime_ms;
    stat.mtime_ms = node.mtime_ms;
    stat.version = node.version;
    stat.cversion =
        2 * static_cast<std::int64_t>(node.creations()) - std::int64_t{node.child_count()};
    stat.aversion = aversion_of(node);
    stat.ephemeral_owner = node.owner();
    stat.data_length = static_cast<std::int32_t>(node.data_length);
    stat.num_children = static_cast<std::int32_t>(node.child_count());
    stat.pzxid = node.pzxid;
    return stat;
}

// Takes the length of the path, which a look-up knows already, so that the node's own need not have
// come out of memory before it is known where the data is.
inline NodeView Tree::view_of(const Node& node, std::size_t path_length) const {
    NodeView view;
    view.path = {node.bytes(), path_length};
    view.data = node.data_after(path_length);
    view.stat = stat_of(node);
    view.acl = acl_of(node);
    return view;
}

std::optional<NodeView> Tree::find(BytesView path) const {
    const Node* const node = seek(path);
    if (node == nullptr) return std::nullopt;
    return view_of(*node, (std::max)(path.size(), std::size_t{1}));
}

bool Tree::contains(BytesView path) const { return seek(path) != nullptr; }

// Leaves on the stack the first child after `after` that does not come before prefix, and on the
// way to it what comes later (T8).
void Tree::seek_children(const Node& parent, BytesView after, BytesView prefix,
                         Stack& stack) const {
    COORD_ASSERT(stack.empty());
    const std::size_t offset = detail::name_offset(parent.path());
    for (std::uint32_t child = parent.child_root(); child != detail::no_index;) {
        const BytesView child_is = child_name(child, offset);
        const bool listed = after < child_is && prefix <= child_is;
        if (listed) stack.push_back(child);
        child = listed ? at(child).left : at(child).right;
    }
}

std::uint32_t Tree::next_child(Stack& stack) const {
    const std::uint32_t child = stack.back();
    stack.pop_back();
    push_left(at(child).right, stack);
    return child;
}

Errc Tree::children(BytesView path, BytesView after, std::size_t limit, std::vector<Bytes>& names,
                    BytesView prefix) const {
    const Node* const parent = seek(path);
    if (parent == nullptr) return Errc::no_node;
    const std::size_t offset = detail::name_offset(parent->path());
    Stack stack;
    seek_children(*parent, after, prefix, stack);
    const bool is_whole = after.empty() && prefix.empty();
    const std::size_t count = parent->child_count();
    if (is_whole) names.reserve(names.size() + (std::min)(limit, count));
    for (; limit > 0 && !stack.empty(); limit--) {
        const BytesView listed = child_name(next_child(stack), offset);
        if (!detail::starts_with(listed, prefix)) break;
        COORD_ASSERT(after < listed);  // T8
        names.emplace_back(listed);
    }
    return Errc::ok;
}

Errc Tree::list(BytesView path, BytesView after, BytesView prefix,
                const Callback<bool(const NodeView&)>& visit_node) const {
    const Node* const parent = seek(path);
    if (parent == nullptr) return Errc::no_node;
    Stack stack;
    seek_children(*parent, after, prefix, stack);
    while (!stack.empty()) {
        const Node& child = at(next_child(stack));
        COORD_ASSERT(child.parent == parent->index);  // T1
        const NodeView view = view_of(child, child.path_length);
        if (!detail::starts_with(node_name(view.path), prefix) || !visit_node(view)) break;
    }
    return Errc::ok;
}

Result<std::size_t> Tree::descendants(BytesView path, std::size_t limit) const {
    const Node* const node = seek(path);
    if (node == nullptr) return Errc::no_node;
    if (node->index == detail::root_index) return size_ - 1;
    Stack stack;
    push_left(node->child_root(), stack);
    std::size_t count = 0;
    for (; !stack.empty(); count++) {
        if (count == limit) return Errc::too_large;
        (void)next_preorder(stack);
    }
    COORD_ASSERT(count >= node->child_count());
    return count;
}

std::size_t Tree::owned(SessionId owner) const {
    const auto found = owned_.find(owner.value);
    return found == owned_.end() ? 0 : static_cast<std::size_t>(found->second >> 32);
}

void Tree::list_owned(SessionId owner, BytesView after, BytesView prefix,
                      const Callback<bool(const NodeView&)>& visit_node) const {
    COORD_ASSERT(visit_node != nullptr);
    const auto found = owned_.find(owner.value);
    auto next = static_cast<std::uint32_t>(found == owned_.end() ? 0 : found->second);
    Stack stack;
    while (next != detail::no_index || !stack.empty()) {
        while (next != detail::no_index) {
            Node& node = at(next);
            const bool is_listed = after < node.path() && prefix <= node.path();
            if (is_listed) stack.push_back(next);
            next = is_listed ? AmongOwned::left(node) : AmongOwned::right(node);
        }
        if (stack.empty()) return;
        Node& node = at(stack.back());
        stack.pop_back();
        COORD_ASSERT(node.owner() == owner);  // T10
        next = AmongOwned::right(node);
        const bool is_listed = detail::starts_with(node.path(), prefix);
        if (!is_listed || !visit_node(view_of(node, node.path_length))) return;
    }
}

void Tree::visit(const Callback<void(const NodeView&)>& visit_node, BytesView from) const {
    COORD_ASSERT(visit_node != nullptr);
    const Node* const top = seek(from);
    if (top == nullptr) return;
    visit_node(view_of(*top, top->path_length));
    std::vector<std::uint32_t> stack;
    push_left(top->child_root(), stack);
    while (!stack.empty()) {
        const Node& node = at(next_preorder(stack));
        visit_node(view_of(node, node.path_length));
    }
}

// ---- Writes

Errc Tree::prepare_create(BytesView path, CreateMode mode, Bytes& created,
                          BytesView who) const {
    if (!detail::is_mode(mode)) return Errc::bad_arguments;
    const std::size_t slash = path.rfind('/');
    if (slash == BytesView::npos || path.find('\0') != BytesView::npos) return Errc::bad_arguments;
    const std::uint32_t parent = locate(path.substr(0, slash));
    if (parent == detail::no_index) return Errc::no_node;
    if (!permits(acl_of(at(parent)), who, permission::create)) return Errc::no_auth;
    created.assign(path);
    if (is_sequential(mode)) detail::append_sequence(at(parent).creations(), created);
    // The parent's path is valid, for it is in the tree; but it is written "" where it is the root.
    if (created.size() > 1) {
        if (slash == 1 || !detail::is_valid_name(BytesView{created}.substr(slash + 1))) {
            return Errc::bad_arguments;
        }
    }
    if (locate(created) != detail::no_index) return Errc::node_exists;
    if (at(parent).is_owned()) return Errc::no_children_for_ephemerals;
    return at(parent).creations() < detail::creations_max ? Errc::ok : Errc::too_many;
}

void Tree::count_child(std::uint32_t parent, bool created, Zxid zxid) {
    keep_counts(at(parent));
    save_before_change(parent);
    Node& node = at(parent);
    COORD_ASSERT(created || node.child_count() > 0);
    COORD_ASSERT(!node.is_owned());  // T4
    COORD_ASSERT(node.owner_or_creations + (created ? 1u : 0u) <= detail::creations_max);
    const std::uint64_t path_hash = hash64(node.path(), 0);
    digest_ -= children_digest(path_hash, node);
    node.count_or_left += created ? 1u : 0u - 1u;
    node.owner_or_creations += created ? 1u : 0u;  // T3
    node.pzxid = zxid;
    digest_ += children_digest(path_hash, node);
}

void Tree::create(BytesView path, BytesView data, const NodeLife& life, Zxid zxid,
                  std::int64_t time_ms, BytesView acl) {
    COORD_ASSERT(path.size() > 1);
    const std::uint32_t parent = locate(parent_path(path));
    COORD_ASSERT(parent != detail::no_index);  // T1
    COORD_ASSERT(!at(parent).is_owned());      // T4
    work_ += detail::link_work;
    Node fields;
    fields.czxid = fields.mzxid = fields.pzxid = zxid;
    fields.ctime_ms = fields.mtime_ms = time_ms;
    fields.set_life(life.kind, life.owner);
    fields.parent = parent;
    fields.acl = acls_->take(acl, 0);
    const std::uint32_t child = add_node(fields, path, data);
    enlist(child, life.ttl_ms);
    leave_out(child);
    digest_ += digest_of(at(child));
    link_child(parent, child);
    if (can_undo_) undo_starts_.push_back(undo_.size()), undo_.append(path);
    count_child(parent, true, zxid);
}

// Its parent's counts are the caller's.
void Tree::take_out(std::uint32_t index) {
    work_ += detail::link_work;
    Node& node = at(index);
    COORD_ASSERT(node.parent != detail::no_index);
    COORD_ASSERT(node.child_root() == detail::no_index);
    digest_ -= digest_of(node);
    if (node.is_listed()) reapable_.erase(index);  // T7
    acls_->drop(node.acl);  // T9
    unlink_child(node.parent, index);
    erase_entry(hash64(node.path(), seed_), &node);
    bytes_ -= node.path_length + node.data_length;  // T11
    put_by(&node);
    slabs_[index / detail::slab_size][index % detail::slab_size] = nullptr;
    free_indices_.push() = index;
    size_ -= 1;
}

// A missing parent and a missing node have the same error, so one look-up serves both; but a parent
// that is there may refuse.
Errc Tree::remove(BytesView path, std::int32_t version, Zxid zxid, BytesView who) {
    if (path.find('/') == BytesView::npos || path.find('\0') != BytesView::npos ||
        detail::is_built_in(path)) {
        return Errc::bad_arguments;
    }
    const std::uint32_t child = locate(path);
    const Node* const above = child != detail::no_index ? &at(at(child).parent)
                                                        : seek(path.substr(0, path.rfind('/')));
    if (above != nullptr && !permits(acl_of(*above), who, permission::remove)) {
        return Errc::no_auth;
    }
    if (child == detail::no_index) return Errc::no_node;
    Node& node = at(child);
    if (version != any_version && version != node.version) return Errc::bad_version;
    if (node.child_count() > 0) return Errc::not_empty;
    const std::uint32_t parent = node.parent;
    keep_node(child);
    save_before_change(child);
    take_out(child);
    count_child(parent, false, zxid);
    return Errc::ok;
}

// The node stays where it is if the data fits and fills at least half of it, so that sets of about
// one size allocate nothing. The digest is the caller's. RETURNS where it is.
Tree::Node* Tree::replace_data(Node* node, BytesView data) {
    const std::size_t needed = node->path_length + data.size();
    bytes_ += data.size(), bytes_ -= node->data_length;  // T11
    if (needed > node->capacity || node->capacity / 2 > needed + 64) {
        Node* const moved = make_node(*node, node->path(), data, (needed + 15) / 16 * 16);
        const std::uint32_t index = node->index;
        if (index != detail::root_index) replace_entry(hash64(node->path(), seed_), node, moved);
        put_by(node);
        slabs_[index / detail::slab_size][index % detail::slab_size] = node = moved;
    } else if (!data.empty()) {
        std::memmove(node->bytes() + node->path_length, data.data(), data.size());
    }
    node->data_length = static_cast<std::uint32_t>(data.size());
    node->is_null = coord::is_null(data) ? 1 : 0;
    return node;
}

// A path that is found is valid, but for the root's second name.
Errc Tree::set(BytesView path, BytesView data, std::int32_t version, Zxid zxid,
               std::int64_t time_ms, Stat* stat, BytesView who) {
    COORD_ASSERT(data.size() <= static_cast<std::size_t>(INT32_MAX));
    Node* node = path.empty() ? nullptr : seek(path);
    if (node == nullptr) return is_valid_path(path) ? Errc::no_node : Errc::bad_arguments;
    if (!permits(acl_of(*node), who, permission::write)) return Errc::no_auth;
    if (version != any_version && version != node->version) return Errc::bad_version;
    keep_node(node->index);
    save_before_change(node->index);
    const std::uint64_t path_hash = hash64(node->path(), 0);
    digest_ -= own_digest(path_hash, *node);
    work_ += 1;
    node = replace_data(node, data);
    node->version = detail::next_version(node->version);
    node->mzxid = zxid;
    node->mtime_ms = time_ms;
    digest_ += own_digest(path_hash, *node);
    if (stat != nullptr) *stat = stat_of(*node);
    return Errc::ok;
}

COORD_RARE
void Tree::put_data(BytesView path, BytesView data) {
    Node* const node = seek(path);
    COORD_ASSERT(node != nullptr && data.size() <= static_cast<std::size_t>(INT32_MAX));
    const std::uint64_t path_hash = hash64(node->path(), 0);
    keep_node(node->index);
    save_before_change(node->index);
    digest_ -= own_digest(path_hash, *node);
    work_ += 1;
    digest_ += own_digest(path_hash, *replace_data(node, data));
}

// The aversion of /zookeeper/config is -1 at first. The new list is taken before the old one goes:
// they may be one.
COORD_RARE
Errc Tree::set_acl(BytesView path, BytesView acl, std::int32_t aversion, std::uint32_t acls_max,
                   Stat* stat, BytesView who) {
    Node* const node = path.empty() ? nullptr : seek(path);
    if (node == nullptr) return is_valid_path(path) ? Errc::no_node : Errc::bad_arguments;
    if (!permits(acl_of(*node), who, permission::admin)) return Errc::no_auth;
    const std::int32_t is = aversion_of(*node);
    if (aversion != any_version && aversion != is) return Errc::bad_version;
    const std::int32_t next = is == any_version ? 0 : detail::next_version(is);
    const bool is_known = (acl.empty() && next == 0) || acls_->find(acl, next) != 0;
    if (!is_known && acls_->numbers.size() >= acls_max) return Errc::too_many;
    work_ += 1;
    keep_acl(*node);
    save_before_change(node->index);
    put_acl(*node, acl, next);
    if (stat != nullptr) *stat = stat_of(*node);
    return Errc::ok;
}

COORD_RARE
void Tree::put_acl(Node& node, BytesView acl, std::int32_t aversion) {
    const std::uint64_t path_hash = hash64(node.path(), 0);
    digest_ -= acl_digest(path_hash, node);
    const std::uint32_t number = acls_->take(acl, aversion);
    acls_->drop(node.acl);
    node.acl = number;
    COORD_ASSERT(aversion_of(node) == aversion);  // T9
    digest_ += acl_digest(path_hash, node);
}

// ---- What goes by itself

void Tree::enlist(std::uint32_t index, std::int64_t ttl_ms) {
    const bool is_ttl = at(index).kind() == NodeKind::ttl;
    COORD_ASSERT(is_ttl ? ttl_ms > 0 && ttl_ms <= ttl_ms_max : ttl_ms == 0);  // T7
    if (!at(index).is_listed()) return;
    detail::number_at(reapable_, index) = static_cast<std::uint64_t>(ttl_ms);
}

inline std::int64_t Tree::ttl_ms_of(const Node& node) const {
    if (node.kind() != NodeKind::ttl) return 0;
    const auto listed = reapable_.find(node.index);
    COORD_ASSERT(listed != reapable_.end());  // T7
    return static_cast<std::int64_t>(listed->second);
}

// Times are whatever a clock said: their difference is taken without a sign.
bool Tree::is_due(const Node& node, std::uint64_t ttl_ms, std::int64_t time_ms) {
    COORD_ASSERT(node.is_listed());
    if (node.child_count() > 0) return false;
    if (node.kind() == NodeKind::container) return node.creations() > 0;
    const std::uint64_t age =
        static_cast<std::uint64_t>(time_ms) - static_cast<std::uint64_t>(node.mtime_ms);
    return time_ms > node.mtime_ms && age > ttl_ms;
}

Errc Tree::reap(BytesView path, Zxid czxid, Zxid zxid, std::int64_t time_ms) {
    const Node* const node = seek(path);
    if (node == nullptr || node->czxid != czxid) return Errc::no_node;
    const auto listed = reapable_.find(node->index);
    if (listed == reapable_.end()) return Errc::bad_version;
    if (node->child_count() > 0) return Errc::not_empty;
    if (!is_due(*node, listed->second, time_ms)) return Errc::bad_version;
    return remove(path, any_version, zxid);
}

std::optional<NodeView> Tree::next_due(std::uint64_t& place, std::uint32_t& looks,
                                       std::int64_t time_ms) const {
    for (auto next = reapable_.upper_bound(place); next != reapable_.end(); ++next) {
        if (looks == 0) return std::nullopt;
        looks -= 1;
        place = next->first;
        const Node& node = at(static_cast<std::uint32_t>(place));
        if (is_due(node, next->second, time_ms)) return view_of(node, node.path_length);
    }
    place = 0;
    return std::nullopt;
}

std::optional<NodeLife> Tree::life(BytesView path) const {
    const Node* const node = seek(path);
    if (node == nullptr) return std::nullopt;
    NodeLife life;
    life.kind = node->kind(), life.owner = node->owner(), life.ttl_ms = ttl_ms_of(*node);
    return life;
}

// ---- Undoing

void Tree::begin_undo() {
    COORD_ASSERT(!can_undo_ && undo_starts_.empty());
    can_undo_ = true;
}

void Tree::end_undo(bool is_put_back) {
    COORD_ASSERT(can_undo_);
    can_undo_ = false;
    while (is_put_back && !undo_starts_.empty()) {
        put_back(BytesView(undo_).substr(undo_starts_.back()));
        undo_.resize(undo_starts_.back());
        undo_starts_.pop_back();
    }
    undo_starts_.clear();
    detail::give_back(undo_);
}

void Tree::keep_node(std::uint32_t node) {
    if (can_undo_) undo_starts_.push_back(undo_.size()), save_node(node, undo_);  // T6
}

// Of a parent, whose data may be large: many children may come and go at once.
void Tree::keep_counts(const Node& node) {
    if (!can_undo_) return;
    undo_starts_.push_back(undo_.size());
    undo_.push_back(detail::undo_counts);
    Writer out(undo_);
    out.bytes(node.path());
    out.zxid(node.pzxid);
    out.u64(node.creations());
    out.u32(node.child_count());
}

// Of a node whose data may be large: it can be set many times at once.
COORD_RARE
void Tree::keep_acl(const Node& node) {
    if (!can_undo_) return;
    undo_starts_.push_back(undo_.size());
    undo_.push_back(detail::undo_acl);
    Writer out(undo_);
    out.bytes(node.path());
    out.i32(aversion_of(node));
    out.bytes(acl_of(node));
}

COORD_RARE
void Tree::put_back_acl(BytesView record) {
    Reader in(record);
    Node* const node = seek(in.bytes(in.left()));
    COORD_ASSERT(node != nullptr);
    const std::int32_t aversion = in.i32();
    const BytesView acl = in.bytes(in.left());
    COORD_ASSERT(in.done());
    put_acl(*node, acl, aversion);
}

void Tree::put_back_counts(BytesView record) {
    Reader in(record);
    Node* const node = seek(in.bytes(in.left()));
    COORD_ASSERT(node != nullptr);
    const std::uint64_t path_hash = hash64(node->path(), 0);
    digest_ -= children_digest(path_hash, *node);
    node->pzxid = in.zxid();
    node->owner_or_creations = in.u64();
    node->count_or_left = in.u32();
    COORD_ASSERT(in.done() && !node->is_owned());  // T4
    digest_ += children_digest(path_hash, *node);
}

// A node as it was, or the path of one that was not there. What a save has to have of it was
// written when it was changed.
COORD_RARE
void Tree::put_back(BytesView record) {
    COORD_ASSERT(!record.empty());
    if (record[0] == '/') return take_out(locate(record));
    if (record[0] == detail::undo_counts) return put_back_counts(record.substr(1));
    if (record[0] == detail::undo_acl) return put_back_acl(record.substr(1));
    Record was;
    Limits any;
    any.path_bytes_max = any.data_bytes_max = INT32_MAX;
    any.acl_entries_max = any.acl_id_bytes_max = INT32_MAX;
    record.remove_prefix(detail::state_record_header_bytes);
    const bool is_read = read_node(record, any, was);
    COORD_ASSERT(is_read);
    Node* node = seek(was.path);
    if (node == nullptr) {
        was.node.parent = locate(parent_path(was.path));
        was.node.acl = acls_->take(was.acl, was.aversion);
        // Under the index that it had: what was given away since is free again, last in, first out.
        const std::uint32_t index = add_node(was.node, was.path, was.data);
        COORD_ASSERT(index >= save_end_ || is_saved(index));  // T5
        enlist(index, was.ttl_ms);
        digest_ += digest_of(at(index));
        return link_child(was.node.parent, index);
    }
    COORD_ASSERT(node->czxid == was.node.czxid && node->pzxid == was.node.pzxid);
    COORD_ASSERT(node->owner_or_creations == was.node.owner_or_creations);
    COORD_ASSERT(node->kind() == was.node.kind());
    COORD_ASSERT(ttl_ms_of(*node) == was.ttl_ms);  // T7
    COORD_ASSERT(aversion_of(*node) == was.aversion && acl_of(*node) == was.acl);
    const std::uint64_t path_hash = hash64(was.path, 0);
    digest_ -= own_digest(path_hash, *node);
    node = replace_data(node, was.data);
    node->mzxid = was.node.mzxid, node->mtime_ms = was.node.mtime_ms;
    node->version = was.node.version;
    digest_ += own_digest(path_hash, *node);
}

// ---- The whole tree

COORD_RARE
void Tree::clear() {
    for (std::uint32_t i = 0; i < indices_used_; i++) {
        ::operator delete(slot(i));
    }
    for (Spare*& spares : spares_) {
        while (spares != nullptr) ::operator delete(std::exchange(spares, spares->next));
    }
    spare_count_ = 0;
    slabs_.clear();
    free_indices_.clear();
    reapable_.clear();
    owned_.clear(), owned_size_ = 0;
    acls_ = detail::Owned<Acls>(new Acls());
    tables_ = detail::Owned<Table[]>(new Table[detail::tree_tables]());
    indices_used_ = 0, indices_capacity_ = 0;
    size_ = 0, bytes_ = 0, digest_ = 0;
    stop_saving();
    grow_slabs();
    indices_used_ = detail::root_index;  // no_index is nobody's
}

void Tree::add_built_in(std::uint32_t parent, BytesView path) {
    Node fields;
    fields.parent = parent;
    const std::uint32_t node = add_node(fields, path, {});
    if (parent == detail::no_index) return;
    link_child(parent, node);
    at(parent).count_or_left += 1;
}

// As in ZooKeeper, whose constructor counts none of these as a creation, and lets everybody read
// /zookeeper/config, and nobody do more, by a list of the version -1.
void Tree::reset() {
    clear();
    add_built_in(detail::no_index, "/");
    add_built_in(detail::root_index, "/zookeeper");
    const std::uint32_t zookeeper = locate("/zookeeper");
    add_built_in(zookeeper, "/zookeeper/config");
    add_built_in(zookeeper, "/zookeeper/quota");
    at(locate("/zookeeper/config")).acl = acls_->take(read_only_acl().bytes(), -1);
    for (std::uint32_t node = detail::root_index; node < indices_used_; node++) {
        digest_ += digest_of(at(node));
    }
    COORD_ASSERT(size_ == 4);
}

// ---- A save in slices, and a load

// FORMAT of a node, as a record of a state (chapter 4). The order of the nodes means nothing.
//
//   string path
//   string data; where it is null u32 2^32 - 1 alone
//   u64    czxid, mzxid, pzxid
//   i64    ctime, mtime in ms
//   u64    session that owns it, or 0
//   i32    version, aversion
//   u64    creations of children, ever
//   u32    children
//   u8     kind: 0 persistent, 1 of a session, 2 container, 3 with a ttl; 4 more: with an ACL
//   i64    ttl in ms, of the last kind alone
//   string ACL, where there is one: it is not open
void Tree::save_node(std::uint32_t index, Bytes& bytes) const {
    const Node& node = at(index);
    const std::size_t start = detail::open_state_record(detail::StateRecord::node, bytes);
    Writer out(bytes);
    out.bytes(node.path());
    detail::write_data(out, node.data());
    out.zxid(node.czxid);
    out.zxid(node.mzxid);
    out.zxid(node.pzxid);
    out.i64(node.ctime_ms);
    out.i64(node.mtime_ms);
    out.u64(node.owner().value);
    out.i32(node.version);
    out.i32(aversion_of(node));
    out.u64(node.creations());
    out.u32(node.child_count());
    const BytesView acl = acl_of(node);
    const unsigned with_acl = acl.empty() ? 0 : detail::kind_with_acl;
    out.u8(static_cast<std::uint8_t>(static_cast<unsigned>(node.kind()) + with_acl));
    if (node.kind() == NodeKind::ttl) out.i64(ttl_ms_of(node));
    if (!acl.empty()) out.bytes(acl);
    detail::close_state_record(start, bytes);
}

void Tree::stop_saving() {
    save_end_ = 0;
    detail::give_back(saved_early_);
}

void Tree::begin_save() {
    saved_.assign(indices_used_ / 64 + 1, 0);
    saved_early_.clear();
    save_next_ = detail::root_index, save_end_ = indices_used_;
    COORD_ASSERT(save_end_ > save_next_);
}

inline bool Tree::is_saved(std::uint32_t node) const {
    return node < save_next_ || (saved_[node / 64] >> (node % 64) & 1) != 0;
}

// An index that is given away while a save is under way is no part of it, whoever had it before.
inline void Tree::leave_out(std::uint32_t node) {
    if (node < save_end_) saved_[node / 64] |= std::uint64_t{1} << (node % 64);
}

inline void Tree::save_before_change(std::uint32_t node) {
    if (node >= save_end_ || is_saved(node)) return;
    save_node(node, saved_early_);  // T5
    leave_out(node);
}

bool Tree::save_slice(std::size_t bytes, Bytes& out) {
    COORD_ASSERT(is_saving());
    out.append(saved_early_);
    saved_early_.clear();
    const std::size_t start = out.size();
    std::size_t passed = 0;  // so that neither a desert of free indices takes for ever
    while (save_next_ < save_end_ && out.size() - start + passed < bytes) {
        const bool is_due = slot(save_next_) != nullptr && !is_saved(save_next_);
        if (is_due) save_node(save_next_, out);
        passed += 4, save_next_ += 1;
    }
    if (save_next_ == save_end_) stop_saving();
    return !is_saving();
}

// A sequence number may have taken a path over its limit.
bool Tree::read_node(BytesView bytes, const Limits& limits, Record& record) {
    Reader in(bytes);
    Node& node = record.node;
    record.path = in.bytes(std::size_t{limits.path_bytes_max} + detail::sequence_digits_max);
    record.data = detail::read_data(in, (std::min)(limits.data_bytes_max,
                                                   std::uint32_t{INT32_MAX}));
    node.czxid = in.zxid();
    node.mzxid = in.zxid();
    node.pzxid = in.zxid();
    node.ctime_ms = in.i64();
    node.mtime_ms = in.i64();
    const SessionId owner{in.u64()};
    node.version = in.i32();
    record.aversion = in.i32();
    node.owner_or_creations = in.u64();
    node.count_or_left = in.u32();
    const unsigned kind_number = in.u8();
    const bool has_acl = kind_number >= detail::kind_with_acl;
    const unsigned without = has_acl ? kind_number - detail::kind_with_acl : kind_number;
    const NodeKind kind = static_cast<NodeKind>(without);
    const std::int64_t ttl_ms = kind == NodeKind::ttl ? in.i64() : 1;
    record.acl = has_acl ? in.bytes(detail::acl_bytes_max(limits)) : BytesView();
    if (!in.done() || node.version == any_version || kind > NodeKind::ttl) return false;
    if (ttl_ms < 1 || ttl_ms > ttl_ms_max) return false;
    record.ttl_ms = kind == NodeKind::ttl ? ttl_ms : 0;
    if (has_acl && !detail::is_kept_acl(record.acl, limits)) return false;  // T9
    record.acl_digest = record.acl.empty() ? 0 : hash64(record.acl, detail::acl_seed);
    const BytesView path = record.path;
    if (node.creations() > detail::creations_max || !is_valid_path(path)) return false;
    if (node.count_or_left > node.creations() + detail::built_in_children(path)) return false;
    const bool is_owned = owner != SessionId{};
    if (is_owned != (kind == NodeKind::ephemeral)) return false;
    if (kind != NodeKind::persistent && detail::is_built_in(path)) return false;
    if (is_owned && node.creations() > 0) return false;  // T4; and so there are no children
    node.set_life(kind, owner);
    return true;
}

bool Tree::digest_of_record(BytesView bytes, const Limits& limits, std::uint64_t& digest) {
    Record record;
    if (!read_node(bytes, limits, record)) return false;
    const std::uint64_t path_hash = hash64(record.path, 0);
    digest = own_digest(path_hash, record.node, record.data, record.ttl_ms) +
             children_digest(path_hash, record.node) +
             acl_digest(path_hash, record.acl_digest, record.aversion);
    return true;
}

void Tree::begin_load() {
    clear();
    const std::uint32_t root = take_index();
    COORD_ASSERT(root == detail::root_index);
    slabs_[0][root] = nullptr;  // it may come after others
    loaded_.clear();
}

bool Tree::load_node(BytesView bytes, const Limits& limits) {
    Record record;
    if (!read_node(bytes, limits, record)) return false;
    if (size_ >= (std::max)(limits.nodes_max, std::uint32_t{4})) return false;
    const BytesView path = record.path;
    const bool is_root = path.size() == 1;
    if (is_root && slot(detail::root_index) != nullptr) return false;
    record.node.acl = acls_->take(record.acl, record.aversion);
    if (acls_->numbers.size() > (std::max)(limits.acls_max, std::uint32_t{1})) return false;
    const std::uint32_t index = is_root ? detail::root_index : take_index();
    Node* const made = place_node(index, record.node, path, record.data);
    enlist(index, record.ttl_ms);
    digest_ += digest_of(*made);
    if (is_root) return true;
    const std::uint64_t hash = hash64(path, seed_);
    made->hash = Table::place_of(hash) & ((1u << detail::place_bits) - 1);
    loaded_.push() = hash;
    COORD_ASSERT(index == detail::root_index + loaded_.size());
    return true;
}

Errc Tree::end_load() {
    const bool sound = slot(detail::root_index) != nullptr && enter_loaded() && link_loaded() &&
                       contains("/zookeeper/config") && contains("/zookeeper/quota");
    loaded_ = detail::Ring<std::uint64_t>();
    return sound ? Errc::ok : Errc::corrupt;
}

// All at once, into tables that have their size: the lines that are needed are fetched ahead, and
// nothing moves. RETURNS false where two nodes have one path.
bool Tree::enter_loaded() {
    constexpr std::size_t ahead = 8;
    std::uint32_t entries[detail::tree_tables] = {};
    for (std::size_t i = 0; i < loaded_.size(); i++) entries[loaded_[i] >> 56] += 1;
    for (std::size_t i = 0; i < detail::tree_tables; i++) {
        if (entries[i] > 0) tables_[i].reserve(entries[i]);
    }
    for (std::size_t i = 0; i < loaded_.size(); i++) {
        if (i + ahead < loaded_.size()) {
            tables_[loaded_[i + ahead] >> 56].prefetch(loaded_[i + ahead]);
        }
        const std::uint64_t hash = loaded_[i];
        Table& table = tables_[hash >> 56];
        Node* const node = slot(detail::root_index + 1 + static_cast<std::uint32_t>(i));
        if (!table.lacks(hash, *node)) return false;
        table.put(Table::place_of(hash), Table::tag_of(hash), node);
        table.size += 1;
        COORD_ASSERT(table.size <= entries[hash >> 56]);
    }
    return true;
}

inline void Tree::prefetch_child(std::uint32_t child) const {
    detail::prefetch(&slot(child)->left);
    detail::prefetch(slot(child)->bytes());
}

// Nodes of one parent mostly come one after the other: then the parent is known already. counts
// are of the children that are there; those of the nodes themselves must be the same in all.
bool Tree::find_parents(std::vector<std::uint32_t>& parents, std::vector<std::uint32_t>& counts) {
    std::uint32_t parent = detail::root_index;
    std::uint64_t claimed = at(parent).child_count();
    for (std::uint32_t child = detail::root_index + 1; child < indices_used_; child++) {
        if (child + 8 < indices_used_) prefetch_child(child + 8);
        Node& node = at(child);
        const BytesView path = parent_path(node.path());
        if (at(parent).path() != path) parent = locate(path);
        if (parent == detail::no_index || at(parent).is_owned()) return false;  // T1, T4
        node.parent = parents[child] = parent;
        claimed += node.child_count(), counts[parent] += 1;
    }
    return claimed == indices_used_ - detail::root_index - 1;
}

// Family by family: their members are mostly neighbours in memory.
bool Tree::link_loaded() {
    std::vector<std::uint32_t> parents(indices_used_, 0), ends(indices_used_, 0);
    if (!find_parents(parents, ends)) return false;
    std::uint32_t before = 0;
    for (std::uint32_t& end : ends) {
        before += end;
        end = before - end;  // where its children begin
    }
    std::vector<std::uint32_t> children(before);
    for (std::uint32_t child = detail::root_index + 1; child < indices_used_; child++) {
        children[ends[parents[child]]++] = child;
    }
    for (std::uint32_t parent = detail::root_index; parent < indices_used_; parent++) {
        const std::uint32_t first = ends[parent - 1], count = ends[parent] - first;
        if (count == 0) continue;
        if (count != at(parent).child_count()) return false;
        link_children(parent, &children[first], count);
    }
    for (std::uint32_t node = detail::root_index; node < indices_used_; node++) {
        if (at(node).is_owned()) link_owned(node);
    }
    return true;
}

// In order, each comes below the last one of a higher priority on the way to the last child, and
// takes what was there for what is before it. That way is kept where the children were.
void Tree::link_children(std::uint32_t parent, std::uint32_t* children, std::size_t count) {
    COORD_ASSERT(count > 0 && count == at(parent).child_count());
    const std::size_t offset = detail::name_offset(at(parent).path());
    bool in_order = true;
    for (std::size_t i = 1; in_order && i < count; i++) {
        if (i + 8 < count) prefetch_child(children[i + 8]);
        in_order = child_name(children[i - 1], offset) < child_name(children[i], offset);
    }
    if (!in_order) put_in_order(offset, children, count);
    std::size_t depth = 0;
    for (std::size_t i = 0; i < count; i++) {
        const std::uint32_t child = children[i], rank = priority(child);
        std::uint32_t below = detail::no_index;
        while (depth > 0 && priority(children[depth - 1]) < rank) below = children[--depth];
        COORD_ASSERT(at(child).parent == parent && at(child).right == 0);
        at(child).left = below;
        if (depth > 0) at(children[depth - 1]).right = child;
        children[depth++] = child;
    }
    at(parent).root_or_right = children[0];
}

namespace detail {

// What stands for a child while its family is put in order: most names differ in these bytes.
struct ChildKey {
    std::uint64_t bytes;  // the first eight after those that all the names begin with
    std::uint32_t child;
};

static std::uint64_t leading_bytes(BytesView text) {
    std::uint64_t word = 0;
    for (std::size_t i = 0; i < 8; i++) {
        word = word << 8 | (i < text.size() ? static_cast<unsigned char>(text[i]) : 0u);
    }
    return word;  // no name has a zero in it
}

}  // namespace detail

// Runs that are in order are merged, two and two, until one is left.
void Tree::put_in_order(std::size_t offset, std::uint32_t* children, std::size_t count) const {
    COORD_ASSERT(count > 1);
    const BytesView first = child_name(children[0], offset);
    std::size_t common = first.size();
    for (std::size_t i = 1; i < count; i++) {
        if (i + 8 < count) prefetch_child(children[i + 8]);
        const BytesView name = child_name(children[i], offset);
        std::size_t same = 0;
        while (same < common && same < name.size() && name[same] == first[same]) same++;
        common = same;
    }
    detail::Array<detail::ChildKey> keys(count), merged(count);
    for (std::size_t i = 0; i < count; i++) {
        const BytesView rest = child_name(children[i], offset + common);
        keys[i] = detail::ChildKey{detail::leading_bytes(rest), children[i]};
    }
    const auto is_before = [&](const detail::ChildKey& a, const detail::ChildKey& b) {
        if (a.bytes != b.bytes) return a.bytes < b.bytes;
        return child_name(a.child, offset) < child_name(b.child, offset);
    };
    for (std::size_t width = 1; width < count; width *= 2) {
        std::size_t left = 0, right = 0;
        for (std::size_t i = 0; i < count; i++) {
            if (i % (width * 2) == 0) left = i, right = (std::min)(i + width, count);
            const std::size_t run = i - i % (width * 2);
            const std::size_t left_end = (std::min)(run + width, count);
            const std::size_t right_end = (std::min)(run + width * 2, count);
            const bool from_right = left == left_end ||
                                    (right < right_end && is_before(keys[right], keys[left]));
            merged[i] = keys[from_right ? right++ : left++];
        }
        std::swap(keys, merged);
    }
    for (std::size_t i = 0; i < count; i++) children[i] = keys[i].child;
}

// ---- Audit

COORD_RARE
void Tree::audit_children(std::uint32_t parent) const {
    const std::size_t offset = detail::name_offset(at(parent).path());
    std::vector<std::uint32_t> stack;
    std::uint32_t seen = 0;
    BytesView last;
    push_left(at(parent).child_root(), stack);
    while (!stack.empty()) {
        const std::uint32_t child = stack.back();
        stack.pop_back();
        const Node& node = at(child);
        COORD_ASSERT(node.parent == parent);  // T1
        COORD_ASSERT(last < child_name(child, offset));
        COORD_ASSERT(node.left == 0 || priority(node.left) < priority(child));
        COORD_ASSERT(node.right == 0 || priority(node.right) < priority(child));
        last = child_name(child, offset), seen += 1;
        push_left(node.right, stack);
    }
    COORD_ASSERT(seen == at(parent).child_count());
}

// RETURNS how many there are.
COORD_RARE
std::size_t Tree::audit_owned(SessionId owner, std::uint32_t root) const {
    COORD_ASSERT(root != detail::no_index);
    std::size_t seen = 0;
    BytesView last;
    list_owned(owner, {}, {}, [&](const NodeView& node) {
        COORD_ASSERT(node.stat.ephemeral_owner == owner && last < node.path);  // T10
        Node& listed = at(locate(node.path));
        for (const std::uint32_t below : {AmongOwned::left(listed), AmongOwned::right(listed)}) {
            COORD_ASSERT(below == 0 || priority(below) < priority(listed.index));
        }
        last = node.path, seen += 1;
        return true;
    });
    return seen;
}

COORD_RARE
void Tree::audit_node(std::uint32_t index) const {
    const Node& node = at(index);
    COORD_ASSERT(is_valid_path(node.path()));
    COORD_ASSERT(node.path().size() + node.data_length <= node.capacity);
    COORD_ASSERT(node.version != any_version);
    COORD_ASSERT(locate(node.path()) == index);
    COORD_ASSERT(node.child_count() <= node.creations() + detail::built_in_children(node.path()));
    COORD_ASSERT(node.is_owned() == (node.owner() != SessionId{}));
    COORD_ASSERT(node.is_listed() == (reapable_.find(index) != reapable_.end()));  // T7
    COORD_ASSERT(node.acl == 0 || acls_->entries[node.acl].users > 0);  // T9
    COORD_ASSERT((node.kind() == NodeKind::ttl) == (ttl_ms_of(node) != 0));
    COORD_ASSERT(&at(node.index) == &node && node.index == index);
    if (index == detail::root_index) {
        COORD_ASSERT(node.path() == "/" && node.parent == detail::no_index);
    } else {
        COORD_ASSERT(locate(parent_path(node.path())) == node.parent);  // T1
    }
    audit_children(index);
}

// Each entry can be found: the buckets between its home and its place have counted it.
void Tree::Table::audit() const {
    std::vector<std::uint32_t> passed(bucket_count);
    std::uint32_t entries = 0;
    for (std::uint32_t bucket = 0; bucket < bucket_count; bucket++) {
        for (unsigned entry = 0; entry < Bucket::entries; entry++) {
            const Node* const node = buckets[bucket].node[entry];
            const bool is_tagged = (buckets[bucket].tags >> entry * 8 & 0xFF) != 0;
            COORD_ASSERT(is_tagged == (node != nullptr));
            if (node == nullptr) continue;
            for (std::uint32_t i = home(node->hash); i != bucket; i = after(i)) passed[i] += 1;
            entries += 1;
        }
    }
    COORD_ASSERT(entries == size);
    for (std::uint32_t i = 0; i < bucket_count; i++) {
        COORD_ASSERT(buckets[i].passed() == 255 || buckets[i].passed() == passed[i]);
    }
}

COORD_RARE
void Tree::audit() const {
    std::size_t seen = 0, listed = 0, owned = 0;
    std::vector<std::uint32_t> users(acls_->entries.size(), 0);
    std::uint64_t digest = 0, bytes = 0;
    std::vector<std::uint32_t> stack{detail::root_index};
    while (!stack.empty()) {
        const std::uint32_t node = next_preorder(stack);
        audit_node(node);
        digest += digest_of(at(node)), seen += 1;
        bytes += std::uint64_t{at(node).path_length} + at(node).data_length;
        listed += at(node).is_listed() ? 1u : 0u, owned += at(node).is_owned() ? 1u : 0u;
        users[at(node).acl] += at(node).acl == 0 ? 0u : 1u;
    }
    acls_->audit(users);
    COORD_ASSERT(seen == size_);
    COORD_ASSERT(bytes == bytes_);  // T11
    COORD_ASSERT(listed == reapable_.size());  // T7
    COORD_ASSERT(digest == digest_);  // T2
    COORD_ASSERT(owned == owned_size_);  // T10
    for (const auto& [owner, in] : owned_) {
        const std::size_t found = audit_owned(SessionId{owner}, static_cast<std::uint32_t>(in));
        COORD_ASSERT(found == in >> 32), owned -= found;
    }
    COORD_ASSERT(owned == 0);
    std::size_t slots = 0;
    for (std::size_t i = 0; i < detail::tree_tables; i++) {
        tables_[i].audit();
        slots += tables_[i].size;
    }
    COORD_ASSERT(slots == size_ - 1);
    COORD_ASSERT(size_ + free_indices_.size() == indices_used_ - detail::root_index);
    for (std::size_t i = 0; i < free_indices_.size(); i++) {
        const std::uint32_t index = free_indices_[i];
        COORD_ASSERT(slabs_[index / detail::slab_size][index % detail::slab_size] == nullptr);
    }
}

// =================================================================================================
// Part Two, chapter 4: Machine
// =================================================================================================

namespace detail {

struct CreateBody {
    BytesView path;
    BytesView data;
    CreateMode mode;
    bool has_acl;
    BytesView acl;
    bool has_ttl;
    std::int64_t ttl_ms;
};

constexpr std::uint32_t acl_follows = 1u << 16;  // FORMAT: in the mode of a create

struct SetBody {
    BytesView path;
    BytesView data;
    std::int32_t version;
};

inline bool read_create(BytesView body, CreateBody& create) {
    Reader in(body);
    create.path = in.bytes(body.size());
    create.data = read_data(in, body.size());
    const std::uint32_t mode = in.u32();
    create.has_acl = mode >> 16 == acl_follows >> 16;
    create.mode = static_cast<CreateMode>(create.has_acl ? mode - acl_follows : mode);
    create.acl = create.has_acl ? in.bytes(body.size()) : BytesView();
    create.has_ttl = in.left() > 0;
    create.ttl_ms = create.has_ttl ? in.i64() : 0;
    return in.done();
}

// A mode that there is, with a ttl where it wants one and nowhere else.
inline bool is_kind(const CreateBody& create) {
    if (!is_mode(create.mode) || create.has_ttl != has_ttl(create.mode)) return false;
    return !create.has_ttl || (create.ttl_ms >= 1 && create.ttl_ms <= ttl_ms_max);
}

// The string at the front of rest, as a Reader reads it.
inline bool take_string(BytesView& rest, BytesView& taken) {
    if (rest.size() < 4) return false;
    const std::uint32_t size = load_big32(rest.data());
    if (size > rest.size() - 4) return false;
    taken = BytesView(rest.data() + 4, size);
    rest = BytesView(taken.data() + size, rest.size() - 4 - size);
    return true;
}

// Three times a write, and by far the most frequent kind: without a Reader, which is not inline.
inline bool read_set(BytesView body, SetBody& set) {
    if (!take_string(body, set.path) || body.size() < 8) return false;
    if (load_big32(body.data()) == null_length) {
        set.data = null_data;
        body.remove_prefix(4);
    } else if (!take_string(body, set.data)) {
        return false;
    }
    if (body.size() != 4) return false;
    set.version = static_cast<std::int32_t>(load_big32(body.data()));
    return true;
}

struct SetAclBody {
    BytesView path;
    BytesView acl;
    std::int32_t aversion;
};

inline bool read_set_acl(BytesView body, SetAclBody& set) {
    Reader in(body);
    set.path = in.bytes(body.size());
    set.acl = in.bytes(body.size());
    set.aversion = in.i32();
    return in.done();
}

// And of a check.
inline bool read_remove(BytesView body, BytesView& path, std::int32_t& version) {
    Reader in(body);
    path = in.bytes(body.size());
    version = in.i32();
    return in.done();
}

constexpr std::size_t part_bytes_min = 5;  // of a multi: its op, and the size of its body

// The next part of a multi. REQUIRES of the reader that it has passed their number.
inline bool read_part(Reader& in, OpCode& op, BytesView& body) {
    op = static_cast<OpCode>(in.u8());
    body = in.bytes(in.left());
    return in.ok();
}

// What only a multi has, and coord alone.
constexpr bool is_special(OpCode op) { return op >= OpCode::check_that; }

// That look at a node and change none.
constexpr bool is_condition(OpCode op) {
    return op == OpCode::check || op == OpCode::check_that || op == OpCode::guard;
}

constexpr bool may_create(OpCode op) {
    return op == OpCode::create || op == OpCode::create_or_set ||
           op == OpCode::create_with_parents || op == OpCode::take_over;
}

// Which may have done something by the time that they fail. The others judge first, and then act.
constexpr bool has_steps(OpCode op) {
    return op == OpCode::create_with_parents || op == OpCode::take_over;
}

struct ConditionBody {
    BytesView path;
    Condition condition;
    std::uint64_t number;
    BytesView data;
};

constexpr bool is_known(Condition condition) {
    return condition >= Condition::absent && condition <= Condition::children;
}

inline bool read_condition(BytesView body, ConditionBody& condition) {
    Reader in(body);
    condition.path = in.bytes(body.size());
    condition.condition = static_cast<Condition>(in.u8());
    const bool is_absent = condition.condition == Condition::absent;
    const bool is_data = condition.condition == Condition::data;
    condition.number = is_absent || is_data ? 0 : in.u64();
    condition.data = is_data ? read_data(in, body.size()) : BytesView();
    return in.done();
}

// What stands before the body of a create, which is left in `create`.
struct SpecialBody {
    CreateMode parents;
    SessionId session;
    SessionPassword password;
    BytesView create;
};

inline bool read_special(OpCode op, BytesView body, SpecialBody& special) {
    Reader in(body);
    special.parents = CreateMode::persistent;
    if (op == OpCode::create_with_parents) special.parents = static_cast<CreateMode>(in.u8());
    if (op == OpCode::take_over) {
        special.session = SessionId{in.u64()};
        special.password.high = in.u64(), special.password.low = in.u64();
    }
    special.create = in.raw(in.left());
    return in.ok();
}

// REQUIRES that the create in it is of a mode that there is.
inline bool is_sound_special(OpCode op, const SpecialBody& special, const CreateBody& create) {
    if (op == OpCode::create_or_set) return !is_sequential(create.mode);
    if (op == OpCode::take_over) return create.mode == CreateMode::ephemeral;
    const CreateMode parents = special.parents;
    return parents == CreateMode::persistent || parents == CreateMode::container;
}

// Of a quota on a path P the nodes are quota_top + P + one of these names.
constexpr BytesView quota_top = "/zookeeper/quota";
constexpr BytesView quota_limits = "/zookeeper_limits";
constexpr BytesView quota_stats = "/zookeeper_stats";

// RETURNS the path that such a node is about, or nothing. None is about the root, nor about what
// is in /zookeeper: there the quotas themselves are.
static BytesView quota_subject(BytesView path, BytesView suffix) {
    const std::size_t around = quota_top.size() + suffix.size();
    if (path.size() <= around || !starts_with(path, quota_top)) return {};
    if (path.substr(path.size() - suffix.size()) != suffix) return {};
    const BytesView subject = path.substr(quota_top.size(), path.size() - around);
    const BytesView first = subject.substr(0, subject.find('/', 1));
    return subject[0] != '/' || first == "/zookeeper" ? BytesView() : subject;
}

struct QuotaLimits {
    std::int64_t count = -1;  // nodes; and where below 0 there is none, as of the others
    std::int64_t bytes = -1;  // of their data
    std::int64_t count_hard = -1;
    std::int64_t bytes_hard = -1;
};

// As Long.parseLong does: a sign, and digits, within 64 bits.
static bool read_number(BytesView text, std::int64_t& number) {
    const bool is_negative = text.substr(0, 1) == "-";
    if (is_negative || text.substr(0, 1) == "+") text.remove_prefix(1);
    const std::uint64_t most = std::uint64_t{INT64_MAX} + (is_negative ? 1u : 0u);
    std::uint64_t sum = 0;
    for (const char digit : text) {
        if (digit < '0' || digit > '9') return false;
        const auto value = static_cast<std::uint64_t>(digit - '0');
        if (sum > (most - value) / 10) return false;
        sum = sum * 10 + value;
    }
    const std::uint64_t bits = is_negative ? 0 - sum : sum;
    number = bits > std::uint64_t{INT64_MAX} ? -1 - static_cast<std::int64_t>(~bits)
                                             : static_cast<std::int64_t>(bits);
    return !text.empty();
}

// FORMAT, ZooKeeper's: name=number, or name==, which is no limit; any more after another '=' means
// nothing. Names that are not known do not matter, their numbers do.
static bool read_quota_pair(BytesView pair, QuotaLimits& limits) {
    const std::size_t name_end = (std::min)(pair.find('='), pair.size());
    const BytesView name = pair.substr(0, name_end);
    const BytesView rest = pair.substr((std::min)(name_end + 1, pair.size()));
    if (rest.find_first_not_of('=') == BytesView::npos) return false;
    const BytesView digits = rest.substr(0, rest.find('='));
    std::int64_t number = -1;
    if (!digits.empty() && !read_number(digits, number)) return false;
    if (name == "count") limits.count = number;
    if (name == "bytes") limits.bytes = number;
    if (name == "countHardLimit") limits.count_hard = number;
    if (name == "byteHardLimit") limits.bytes_hard = number;
    return true;
}

// Pairs, with commas and semicolons between and behind them. RETURNS false where it is no quota: a
// ZooKeeper ends where it comes upon such a text.
static bool read_quota(BytesView text, QuotaLimits& limits) {
    constexpr const char* separators = ",;";
    if (is_null(text)) return false;
    text = text.substr(0, text.find_last_not_of(separators) + 1);
    while (!text.empty()) {
        const BytesView pair = text.substr(0, text.find_first_of(separators));
        if (!read_quota_pair(pair, limits)) return false;
        text.remove_prefix(pair.size());
        text.remove_prefix((std::min)(text.find_first_not_of(separators), text.size()));
    }
    return true;
}

struct Quota {
    QuotaLimits limits;
    std::uint64_t count = 0;  // M14
    std::uint64_t bytes = 0;
};

// By so much more; or less, where that is negative.
constexpr bool is_over(std::int64_t limit, std::uint64_t now, std::int64_t more) {
    return limit >= 0 && now + static_cast<std::uint64_t>(more) > static_cast<std::uint64_t>(limit);
}

static Bytes stats_text(const Quota& quota, const Limits& limits) {
    Bytes text = "count=" + std::to_string(quota.count) + ",bytes=" + std::to_string(quota.bytes);
    if (text.size() > limits.data_bytes_max) text.clear();  // what is loaded is within the limits
    return text;
}

constexpr std::size_t places_max = 1024;         // of voters past and present
constexpr std::uint64_t place_seed = 0x766f746572;
constexpr BytesView config_path = "/zookeeper/config";

// As ZooKeeper's, of which a voter's line has addresses, too: here the program alone knows those.
static Bytes config_text(const VoterTable& voters, Zxid version, const Limits& limits) {
    Bytes text;
    for (const VoterTable::Place& place : voters.places()) {
        text += "server." + std::to_string(place.voter.value) + "=participant\n";
    }
    if (text.empty()) return text;
    char digits[17];
    std::snprintf(digits, sizeof digits, "%llx", static_cast<unsigned long long>(version.value));
    text.append("version=").append(digits);
    if (text.size() > limits.data_bytes_max) text.clear();  // what is loaded is within the limits
    return text;
}

inline Errc judge_sizes(BytesView path, BytesView data, const Limits& limits) {
    if (path.size() > limits.path_bytes_max) return Errc::too_large;
    if (data.size() > limits.data_bytes_max) return Errc::too_large;
    return Errc::ok;
}

}  // namespace detail

namespace detail {

// Of a request by itself, or of a part of a multi.
static Errc judge_part(OpCode op, BytesView body, const Limits& limits) {
    if (op == OpCode::create) {
        CreateBody create{};
        if (!read_create(body, create)) return Errc::marshalling_error;
        if (!is_kind(create)) return Errc::bad_arguments;
        const std::size_t room = is_sequential(create.mode) ? sequence_digits_max : 0;
        if (create.path.size() + room > limits.path_bytes_max) return Errc::too_large;
        const Errc error = judge_sizes(create.path, create.data, limits);
        return error == Errc::ok && create.has_acl ? judge_acl(create.acl, limits) : error;
    }
    if (op == OpCode::set_acl) {
        SetAclBody set{};
        if (!read_set_acl(body, set)) return Errc::marshalling_error;
        const Errc error = judge_sizes(set.path, {}, limits);
        return error == Errc::ok ? judge_acl(set.acl, limits) : error;
    }
    if (op == OpCode::remove || op == OpCode::check) {
        BytesView path;
        std::int32_t version = 0;
        if (!read_remove(body, path, version)) return Errc::marshalling_error;
        return judge_sizes(path, {}, limits);
    }
    if (op != OpCode::set) return Errc::unimplemented;
    SetBody set{};
    if (!read_set(body, set)) return Errc::marshalling_error;
    return judge_sizes(set.path, set.data, limits);
}

static Errc judge_special(OpCode op, BytesView body, const Limits& limits) {
    if (op == OpCode::remove_all) return judge_part(OpCode::remove, body, limits);
    if (op == OpCode::check_that) {
        ConditionBody condition{};
        if (!read_condition(body, condition)) return Errc::marshalling_error;
        if (!is_known(condition.condition)) return Errc::bad_arguments;
        return judge_sizes(condition.path, condition.data, limits);
    }
    if (op == OpCode::guard) {
        Reader in(body);
        const BytesView path = in.bytes(body.size());
        (void)in.zxid();
        return in.done() ? judge_sizes(path, {}, limits) : Errc::marshalling_error;
    }
    if (!may_create(op)) return Errc::unimplemented;
    SpecialBody special{};
    CreateBody create{};
    if (!read_special(op, body, special)) return Errc::marshalling_error;
    const Errc error = judge_part(OpCode::create, special.create, limits);
    if (error != Errc::ok) return error;
    const bool is_read = read_create(special.create, create);
    COORD_ASSERT(is_read);
    return is_sound_special(op, special, create) ? Errc::ok : Errc::bad_arguments;
}

static Errc judge_multi(BytesView body, const Limits& limits) {
    Reader in(body);
    const std::uint32_t count = in.u32();
    if (in.ok() && count > limits.multi_parts_max) return Errc::too_many;
    for (std::uint32_t i = 0; i < count && in.ok(); i++) {
        OpCode op{};
        BytesView part;
        if (!read_part(in, op, part)) break;
        const Errc error =
            is_special(op) ? judge_special(op, part, limits) : judge_part(op, part, limits);
        if (error != Errc::ok) return error;
    }
    return in.done() ? Errc::ok : Errc::marshalling_error;
}

}  // namespace detail

bool is_same(const SessionPassword& a, const SessionPassword& b) {
    return ((a.high ^ b.high) | (a.low ^ b.low)) == 0;
}

std::uint64_t next_holding(std::uint64_t cxid) { return ((cxid >> cxid_bits) + 1) << cxid_bits; }

namespace detail {

// M17. The ids of local sessions are beyond the zxids of the first 2^23 epochs. One that a session
// of a later epoch has already, or the other way round, is refused where it comes second.
static constexpr std::uint64_t local_id_bit = std::uint64_t{1} << 63;
static constexpr std::size_t opening_bytes = 8 + 4 + 8 + 8;

static bool may_be_local(SessionId id) { return (id.value & local_id_bit) != 0; }

static bool is_opening_of_local(BytesView body) { return body.size() == opening_bytes + 1; }

static bool is_opening(BytesView body) {
    if (!is_opening_of_local(body)) return body.size() == opening_bytes;
    return may_be_local(SessionId{Reader(body).u64()}) && body.back() == 1;
}

// Whom an open_session with that zxid opens. REQUIRES is_opening(body).
static SessionId opened_id(Zxid zxid, BytesView body) {
    return SessionId{is_opening_of_local(body) ? Reader(body).u64() : zxid.value};
}

}  // namespace detail

Errc judge_request(OpCode op, BytesView body, const Limits& limits) {
    switch (op) {
        case OpCode::open_session:
            return detail::is_opening(body) ? Errc::ok : Errc::marshalling_error;
        case OpCode::attach_session: return body.size() == 8 ? Errc::ok : Errc::marshalling_error;
        case OpCode::close_session: return body.size() == 1 ? Errc::ok : Errc::marshalling_error;
        case OpCode::create:
        case OpCode::remove:
        case OpCode::set_acl:
        case OpCode::set: return detail::judge_part(op, body, limits);
        case OpCode::auth: return detail::judge_identities(body, limits);
        case OpCode::multi: return detail::judge_multi(body, limits);
        case OpCode::check:
        case OpCode::check_that:
        case OpCode::guard:
        case OpCode::create_or_set:
        case OpCode::create_with_parents:
        case OpCode::take_over:
        case OpCode::remove_all:
        case OpCode::admit:           // M5
        case OpCode::reap:            // M7
        case OpCode::silence: break;  // M9
    }
    return Errc::unimplemented;
}

bool takes_space(OpCode op, BytesView body) {
    const auto grows = [](OpCode code) {
        return code == OpCode::set || code == OpCode::set_acl || detail::may_create(code);
    };
    bool takes = grows(op);
    if (op != OpCode::multi) return takes;
    Reader in(body);
    const std::uint32_t count = in.u32();
    for (std::uint32_t i = 0; i < count && !takes; i++) {
        BytesView part;
        if (!detail::read_part(in, op, part)) break;
        takes = grows(op);
    }
    return takes;
}

const VoterTable::Place* VoterTable::find(PeerId voter) const {
    for (const Place& place : places_) {
        if (place.voter == voter) return &place;
    }
    return nullptr;
}

VoterTable::Place& VoterTable::find_or_add(PeerId voter) {
    std::size_t i = 0;
    while (i < places_.size() && places_[i].voter < voter) i++;
    if (i == places_.size() || places_[i].voter != voter) {
        places_.push_back(Place{});
        for (std::size_t j = places_.size() - 1; j > i; j--) places_[j] = places_[j - 1];
        places_[i] = Place{voter, 0, false};
    }
    return places_[i];
}

std::uint64_t VoterTable::storage_of(PeerId voter) const {
    const Place* const place = find(voter);
    return place == nullptr ? 0 : place->storage;
}

bool VoterTable::is_founding() const {
    for (const Place& place : places_) {
        if (place.is_founding) return true;
    }
    return false;
}

bool VoterTable::apply(BytesView body) {
    Reader in(body);
    const std::uint32_t count = in.u32();
    if (!in.ok() || count > detail::places_max) return false;
    if (in.left() != count * std::size_t{12}) return false;
    if (places_.size() + count > detail::places_max) return false;
    for (std::uint32_t i = 0; i < count; i++) {
        const std::size_t before = places_.size();
        Place& place = find_or_add(PeerId{in.u32()});
        place.storage = in.u64();
        place.is_founding = place.is_founding || places_.size() > before;
    }
    for (Place& place : places_) {
        if (count == 0) place.is_founding = false;
    }
    return true;
}

void VoterTable::write(const Places& changes, Bytes& body) {
    Writer writer(body);
    writer.u32(static_cast<std::uint32_t>(changes.size()));
    for (const Place& place : changes) writer.u32(place.voter.value), writer.u64(place.storage);
}

std::uint64_t VoterTable::digest_of(const Place& place) {
    return mix64(mix64(detail::place_seed, place.voter.value),
                 mix64(place.storage, place.is_founding ? 1 : 0));
}

std::uint64_t VoterTable::digest() const {
    std::uint64_t sum = 0;
    for (const Place& place : places_) sum += digest_of(place);
    return sum;
}

void VoterTable::save(Bytes& out) const {
    for (const Place& place : places_) {
        const std::size_t start = detail::open_state_record(detail::StateRecord::voter, out);
        Writer writer(out);
        writer.u32(place.voter.value), writer.u64(place.storage);
        writer.u8(place.is_founding ? 1 : 0);
        detail::close_state_record(start, out);
    }
}

bool VoterTable::read(BytesView record, Place& place) {
    Reader in(record);
    place.voter = PeerId{in.u32()};
    place.storage = in.u64();
    const std::uint8_t is_founding = in.u8();
    place.is_founding = is_founding == 1;
    return in.done() && is_founding <= 1;
}

bool VoterTable::load(BytesView record) {
    Place place;
    if (!read(record, place) || places_.size() == detail::places_max) return false;
    if (find(place.voter) != nullptr) return false;
    find_or_add(place.voter) = place;
    return true;
}

void VoterTable::clear() { places_.clear(); }

const Outcome* SessionRecord::outcome_of(std::uint64_t request_cxid) const {
    if (outcomes.empty() || request_cxid < outcomes.front().cxid) return nullptr;
    const std::uint64_t place = request_cxid - outcomes.front().cxid;
    if (place >= outcomes.size()) return nullptr;
    const Outcome& outcome = outcomes[static_cast<std::size_t>(place)];
    COORD_ASSERT(outcome.cxid == request_cxid);  // M2
    return &outcome;
}

struct Machine::Quotas {
    using ByPath = std::map<Bytes, detail::Quota, std::less<>>;
    struct Was {
        Bytes path;
        bool was_there;
        detail::Quota quota;
    };
    ByPath by_path;
    std::vector<Was> undo;  // of those that a multi has changed, as they were before

    // The deepest at or above a path; end() where there is none. None but what comes last before a
    // path can be longer than what that has in common with it: few steps, however deep it is.
    ByPath::iterator above(BytesView path) {
        while (path.size() > 1) {
            auto found = by_path.upper_bound(path);
            if (found == by_path.begin()) break;
            const BytesView before = (--found)->first;
            std::size_t same = 0;
            while (same < before.size() && before[same] == path[same]) same += 1;
            const bool is_end = same == path.size() || path[same] == '/';
            if (same == before.size() && is_end) return found;
            path = path.substr(0, path.rfind('/', same));
        }
        return by_path.end();
    }
};

Machine::Machine(const Limits& limits, std::uint64_t seed) : limits_(limits), tree_(seed) {}

Machine::~Machine() = default;

std::uint64_t Machine::digest() const {
    return tree_.digest() + sessions_digest_ + voters_digest_;
}

std::uint64_t Machine::work() const {
    return tree_.work() + counted_ / detail::counted_per_work;
}

std::uint64_t Machine::digest_lasting(const SessionRecord& session) {
    const std::uint64_t times = std::uint64_t{session.silent_ms} << 32 | session.timeout_ms;
    const std::uint64_t opened = mix64(mix64(session.id.value, session.nonce), times);
    const std::uint64_t password = mix64(session.password.high, session.password.low);
    return mix64(opened, mix64(password, session.holder) + session.identities_hash);
}

std::uint64_t Machine::digest_of(const SessionRecord& session, std::uint64_t lasting) {
    return mix64(lasting, mix64(session.cxid + 1, session.confirmed + 1));
}

std::uint64_t Machine::digest_of(const SessionRecord& session) {
    return digest_of(session, digest_lasting(session));
}

// After a change of anything in it but what a write changes.
void Machine::renew_digest(SessionRecord& session) {
    sessions_digest_ -= session.digest;
    session.lasting_digest = digest_lasting(session);
    session.digest = digest_of(session, session.lasting_digest);
    sessions_digest_ += session.digest;
}

const SessionRecord* Machine::find_session(SessionId id) const {
    const auto found = sessions_.find(id);
    return found == sessions_.end() ? nullptr : &found->second;
}

bool Machine::may(SessionId id, BytesView acl, std::uint32_t permissions) const {
    if (acl.empty()) return true;
    const SessionRecord* const session = find_session(id);
    return permits(acl, session == nullptr ? BytesView() : session->identities, permissions);
}

const SessionRecord* Machine::find_nonce(std::uint64_t nonce) const {
    const auto found = nonces_.find(nonce);
    return found == nonces_.end() ? nullptr : find_session(SessionId{found->second});
}

namespace detail {

static void forget_outcomes(SessionRecord& session, std::uint64_t confirmed) {
    while (!session.outcomes.empty() && session.outcomes.front().cxid <= confirmed) {
        std::vector<Part>().swap(session.outcomes.front().parts);  // too many for a slot to keep
        session.outcomes.pop();
    }
}

}  // namespace detail

const Outcome* Machine::apply(const Txn& txn, ChangeSink& changes) {
    COORD_ASSERT(txn.zxid > applied_);
    applied_ = txn.zxid;
    over_quota_ = 0, count_left_ = limits_.list_max;
    if (txn.op == OpCode::open_session) return open_session(txn);
    if (txn.op == OpCode::admit) return admit(txn, changes);
    if (txn.op == OpCode::reap) return reap(txn, changes);
    if (txn.op == OpCode::silence) return silence(txn);
    const auto found = sessions_.find(txn.session);
    if (found == sessions_.end()) {
        outcome_ = Outcome{txn.cxid, txn.zxid, txn.op, Errc::session_expired, {}, {}, {}, {}};
        outcome_.session = txn.session;
        return &outcome_;
    }
    SessionRecord& session = found->second;
    if (txn.op == OpCode::attach_session) return attach_session(txn, session);
    const bool by_leader = txn.op == OpCode::close_session && txn.cxid == 0;
    if (!by_leader && txn.cxid != session.cxid + 1) return nullptr;  // M2
    save_before_change(session);
    if (txn.op == OpCode::close_session) return close_session(txn, changes);

    session.cxid = txn.cxid;
    detail::forget_outcomes(session, txn.confirmed);
    session.confirmed = (std::max)(session.confirmed, (std::min)(txn.confirmed, txn.cxid - 1));
    Outcome& outcome = session.outcomes.push();
    outcome.cxid = txn.cxid, outcome.zxid = txn.zxid, outcome.op = txn.op;
    outcome.path.clear(), outcome.stat = Stat{}, outcome.session = txn.session;
    outcome.parts.clear();
    const bool adds_identities = txn.op == OpCode::auth;
    outcome.error = adds_identities            ? authenticate(txn, session)
                    : txn.op == OpCode::multi ? multi(txn, session, outcome, changes)
                                              : execute(txn, session, outcome, changes);
    if (adds_identities) renew_digest(session);
    const std::uint64_t digest = digest_of(session, session.lasting_digest);
    sessions_digest_ += digest - session.digest;
    session.digest = digest;
    return &outcome;
}

COORD_RARE
const Outcome* Machine::admit(const Txn& txn, ChangeSink& changes) {
    outcome_ = Outcome{0, txn.zxid, txn.op, Errc::ok, {}, {}, {}, {}};
    if (!voters_.apply(txn.body)) outcome_.error = Errc::marshalling_error;
    voters_digest_ = voters_.digest();  // M5
    if (!is_config_sound()) write_config(txn, changes);
    COORD_ASSERT(is_config_sound());  // M16
    return &outcome_;
}

// M16. Another storage of a voter changes nothing.
COORD_RARE
bool Machine::is_config_sound() const {
    const std::optional<NodeView> node = tree_.find(detail::config_path);
    COORD_ASSERT(node.has_value());
    return node->data == detail::config_text(voters_, node->stat.mzxid, limits_);
}

COORD_RARE
void Machine::write_config(const Txn& txn, ChangeSink& changes) {
    const Bytes text = detail::config_text(voters_, txn.zxid, limits_);
    Stat stat;
    const Errc set =
        tree_.set(detail::config_path, text, any_version, txn.zxid, txn.time_ms, &stat);
    COORD_ASSERT(set == Errc::ok && stat.mzxid == txn.zxid);  // M16
    keep_acl(detail::config_path);
    if (recorder_ != nullptr) record_set(detail::config_path, text, stat, txn.zxid);
    changes.on_data_changed(detail::config_path, txn.zxid, acl_);
}

// Only a suggestion: a child may have come since, or another node (M7).
COORD_RARE
const Outcome* Machine::reap(const Txn& txn, ChangeSink& changes) {
    outcome_ = Outcome{0, txn.zxid, txn.op, Errc::ok, {}, {}, {}, {}};
    Reader in(txn.body);
    const BytesView path = in.bytes(in.left());
    const Zxid czxid = in.zxid();
    keep_acl(path);
    const Stat stat = recorded_stat(path);
    outcome_.error = in.done() ? tree_.reap(path, czxid, txn.zxid, txn.time_ms)
                               : Errc::marshalling_error;
    if (outcome_.error != Errc::ok) return &outcome_;
    record_removal(path, stat, txn.zxid);
    tell_gone(path, txn.zxid, changes);
    return &outcome_;
}

COORD_RARE
const Outcome* Machine::silence(const Txn& txn) {
    outcome_ = Outcome{0, txn.zxid, txn.op, Errc::ok, {}, {}, {}, {}};
    Reader in(txn.body);
    while (in.left() > 0) {
        const SessionId id{in.u64()};
        const std::uint32_t silent_ms = in.u32();
        const auto found = sessions_.find(id);
        if (!in.ok() || found == sessions_.end()) continue;  // it ended meanwhile
        SessionRecord& session = found->second;
        save_before_change(session);
        session.silent_ms = (std::min)(silent_ms, session.timeout_ms);
        renew_digest(session);
    }
    if (!in.ok()) outcome_.error = Errc::marshalling_error;
    return &outcome_;
}

COORD_RARE
const Outcome* Machine::open_session(const Txn& txn) {
    outcome_ = Outcome{0, txn.zxid, txn.op, Errc::ok, {}, {}, {}, {}};
    if (!detail::is_opening(txn.body)) {
        outcome_.error = Errc::marshalling_error;
        return &outcome_;
    }
    Reader in(txn.body);
    const std::uint64_t nonce = in.u64();
    const SessionId id = detail::opened_id(txn.zxid, txn.body);
    const bool was_local = detail::is_opening_of_local(txn.body);
    const SessionRecord* const known = find_nonce(nonce);
    if (known != nullptr && (!was_local || known->id == id)) {
        outcome_.session = known->id;  // asked twice: the same session
    } else if (known != nullptr || find_session(id) != nullptr) {
        outcome_.error = was_local ? Errc::session_expired : Errc::too_many;  // M17
    } else if (sessions_.size() >= limits_.sessions_max) {
        outcome_.error = Errc::too_many;
    } else {
        SessionRecord& session = sessions_.at_or_new(id);
        session.id = id, session.nonce = nonce, session.timeout_ms = in.u32();
        session.password.high = in.u64(), session.password.low = in.u64();
        if (is_saving_) session.saved_in = save_number_;
        detail::number_at(nonces_, nonce) = id.value;
        renew_digest(session);
        outcome_.session = id;
    }
    return &outcome_;
}

COORD_RARE
const Outcome* Machine::attach_session(const Txn& txn, SessionRecord& session) {
    const std::uint64_t begin = next_holding(session.cxid);
    Reader in(txn.body);
    const std::uint64_t holder = in.u64();
    if (!in.done() || begin == 0 || txn.cxid != begin) return nullptr;  // M8: another was first
    save_before_change(session);
    session.holder = holder, session.silent_ms = 0;
    session.identities.clear(), session.identities_hash = 0;  // M8
    session.cxid = session.confirmed = begin;
    detail::forget_outcomes(session, UINT64_MAX);
    renew_digest(session);
    outcome_ = Outcome{txn.cxid, txn.zxid, txn.op, Errc::ok, {}, {}, txn.session, {}};
    return &outcome_;
}

const Outcome* Machine::close_session(const Txn& txn, ChangeSink& changes) {
    const auto found = sessions_.find(txn.session);
    COORD_ASSERT(found != sessions_.end());
    const auto take_first = [&](const NodeView& node) {
        created_path_.assign(node.path);
        return false;
    };
    while (tree_.owned(txn.session) > 0) {  // M4
        tree_.list_owned(txn.session, {}, {}, take_first);
        keep_acl(created_path_);
        const Stat stat = recorded_stat(created_path_);
        const Errc removed = tree_.remove(created_path_, any_version, txn.zxid);
        COORD_ASSERT(removed == Errc::ok);  // M3
        record_removal(created_path_, stat, txn.zxid);
        tell_gone(created_path_, txn.zxid, changes);
    }
    sessions_digest_ -= found->second.digest;
    nonces_.erase(found->second.nonce);
    sessions_.erase(found);
    outcome_ = Outcome{txn.cxid, txn.zxid, txn.op, Errc::ok, {}, {}, txn.session, {}};
    return &outcome_;
}

Errc Machine::execute(const Txn& txn, SessionRecord& session, Outcome& outcome,
                      ChangeSink& changes) {
    switch (txn.op) {
        case OpCode::create: return create(txn, session, outcome, changes);
        case OpCode::remove: return remove(txn, session, changes);
        case OpCode::set: return set(txn, session, outcome, changes);
        case OpCode::set_acl: return set_acl(txn, session, outcome);
        case OpCode::check: return check_version(txn, session, outcome);
        case OpCode::auth:  // not a part of a multi
        case OpCode::check_that:
        case OpCode::guard:
        case OpCode::create_or_set:
        case OpCode::create_with_parents:
        case OpCode::take_over:
        case OpCode::remove_all:  // parts only: see execute_part
        case OpCode::multi:
        case OpCode::open_session:
        case OpCode::attach_session:
        case OpCode::close_session:
        case OpCode::admit:
        case OpCode::reap:
        case OpCode::silence: break;
    }
    return Errc::unimplemented;
}

// M10. Twice the same is once.
COORD_RARE
Errc Machine::authenticate(const Txn& txn, SessionRecord& session) const {
    const Errc error = detail::judge_identities(txn.body, limits_);
    if (error != Errc::ok) return error;
    Bytes all = session.identities;
    Reader in(txn.body);
    Acl::Entry entry;
    while (detail::read_entry(in, entry)) {
        if (!detail::has_entry(all, entry)) detail::write_entry(entry, all);
    }
    if (detail::judge_identities(all, limits_) != Errc::ok) return Errc::too_many;
    COORD_ASSERT(txn.session == session.id && all.size() >= session.identities.size());  // M10
    session.identities = std::move(all);
    session.identities_hash = detail::hash_of_identities(session.identities);
    return Errc::ok;
}

// Puts into acl_ what a node is to have: each entry once, those of the session for "auth", and no
// bytes where it is open. No more of it than may be: few entries can stand for very many.
COORD_RARE
Errc Machine::resolve(BytesView acl, const SessionRecord& session) {
    const Errc error = detail::judge_acl(acl, limits_);
    acl_.clear();
    if (error != Errc::ok) return error;
    Reader in(acl);
    Acl::Entry entry;
    std::uint32_t expanded = 0;  // a bit for each permissions that "auth" was given
    std::uint32_t entries = 0;
    const auto add = [&](const Acl::Entry& one) {
        const bool is_new = entries <= limits_.acl_entries_max && !detail::has_entry(acl_, one);
        if (is_new) detail::write_entry(one, acl_), entries += 1;
    };
    while (detail::read_entry(in, entry)) {
        const bool stands_for_all = entry.scheme == "auth";
        if (!stands_for_all) add(entry);
        const std::uint32_t bit = 1u << entry.permissions;
        if (!stands_for_all || (expanded & bit) != 0) continue;
        expanded |= bit;
        Reader all(session.identities);
        Acl::Entry identity;
        bool is_any = false;
        while (detail::read_entry(all, identity)) {
            if (identity.scheme == "ip" || identity.scheme == "super") continue;
            identity.permissions = entry.permissions, is_any = true;
            add(identity);
        }
        if (!is_any) return Errc::invalid_acl;
    }
    if (detail::judge_acl(acl_, limits_) != Errc::ok) return Errc::too_many;
    if (acl_ == detail::open_bytes) acl_.clear();
    COORD_ASSERT(acl_.empty() || detail::is_kept_acl(acl_, limits_));  // T9
    return Errc::ok;
}

// Who hears of the end of a node is told by what it had; so it is asked before.
void Machine::keep_acl(BytesView path) {
    acl_.clear();
    if (!tree_.hides_some()) return;
    const std::optional<NodeView> node = tree_.find(path);
    if (node) acl_.assign(node->acl);
}

void Machine::tell_gone(BytesView path, Zxid zxid, ChangeSink& changes) {
    changes.on_deleted(path, zxid, acl_);
    const BytesView parent = parent_path(path);
    keep_acl(parent);
    changes.on_children_changed(parent, zxid, acl_);
}

Errc Machine::check_version(const Txn& txn, const SessionRecord& session,
                            Outcome& outcome) const {
    BytesView path;
    std::int32_t version = 0;
    if (!detail::read_remove(txn.body, path, version)) return Errc::marshalling_error;
    if (!is_valid_path(path)) return Errc::bad_arguments;
    const std::optional<NodeView> node = tree_.find(path);
    if (!node) return Errc::no_node;
    if (!permits(node->acl, session.identities, permission::read)) return Errc::no_auth;
    outcome.stat = node->stat;
    return version == any_version || version == node->stat.version ? Errc::ok : Errc::bad_version;
}

// One part after the other, each in what those before it have left; and back, where one fails (M6).
Errc Machine::multi(const Txn& txn, SessionRecord& session, Outcome& outcome,
                    ChangeSink& changes) {
    Reader in(txn.body);
    const std::uint32_t count = in.u32();
    const std::uint64_t digest = tree_.digest();
    Errc error = Errc::ok;
    bool can_undo = false;
    removals_left_ = limits_.removals_max;
    if (recorder_ != nullptr) recorder_->hold();
    outcome.parts.reserve((std::min)(std::size_t{count}, in.left() / detail::part_bytes_min));
    for (std::uint32_t i = 0; i < count && in.ok(); i++) {
        Txn one = txn;
        const bool is_read = detail::read_part(in, one.op, one.body);
        // After the last one nothing can fail: what it changes need not be kept as it was.
        const bool is_last = i + 1 == count && in.done();
        if (!can_undo && !detail::is_condition(one.op) && (!is_last || detail::has_steps(one.op))) {
            tree_.begin_undo();
            can_undo = true;
        }
        outcome.path.clear(), outcome.stat = Stat{};
        Part& part = outcome.parts.emplace_back();
        if (error != Errc::ok) {
            part.error = Errc::runtime_inconsistency;
            continue;
        }
        part.error = is_read ? execute_part(one, session, outcome) : Errc::marshalling_error;
        part.path = outcome.path, part.stat = outcome.stat;
        error = part.error;
    }
    if (error == Errc::ok && !in.done()) error = Errc::marshalling_error;
    outcome.path.clear(), outcome.stat = Stat{};
    if (can_undo) tree_.end_undo(error != Errc::ok);
    if (quotas_) settle_quotas(error != Errc::ok);
    COORD_ASSERT(error == Errc::ok || tree_.digest() == digest);  // M6
    COORD_ASSERT(can_undo || error == Errc::ok || held_.size() == 0);  // M6
    COORD_ASSERT(removals_left_ <= limits_.removals_max);              // M11
    if (recorder_ != nullptr) recorder_->release(error == Errc::ok);
    if (error == Errc::ok) held_.tell(changes, txn.zxid);
    if (error != Errc::ok) {
        for (Part& part : outcome.parts) part.path.clear(), part.stat = Stat{};
    }
    held_.clear();
    return error;
}

COORD_RARE
void HeldChanges::add(Kind kind, BytesView path, BytesView acl) {
    const Bytes* kept = nullptr;
    if (!acl.empty()) {
        auto known = acls_.find(acl);
        if (known == acls_.end()) known = acls_.emplace(Bytes(acl), true).first;
        kept = &known->first;
    }
    paths_.append(path);
    changes_.push_back(Change{kind, paths_.size(), kept});
}

void HeldChanges::clear() {
    changes_.clear();
    acls_.clear();
    detail::give_back(paths_);
}

BytesView HeldChanges::path(std::size_t change) const {
    const std::size_t start = change == 0 ? 0 : changes_[change - 1].end;
    return BytesView(paths_).substr(start, changes_[change].end - start);
}

void HeldChanges::tell(ChangeSink& changes, Zxid zxid) const {
    for (std::size_t i = 0; i < changes_.size(); i++) {
        const Change& change = changes_[i];
        (changes.*change.kind)(path(i), zxid, change.acl == nullptr ? BytesView() : *change.acl);
    }
}

Errc Machine::create(const Txn& txn, SessionRecord& session, Outcome& outcome,
                     ChangeSink& changes) {
    detail::CreateBody body{};
    if (!detail::read_create(txn.body, body)) return Errc::marshalling_error;
    if (!detail::is_kind(body)) return Errc::bad_arguments;
    acl_.clear();
    Errc error = Errc::ok;
    if (body.has_acl) error = resolve(body.acl, session);
    if (error != Errc::ok) return error;
    error = tree_.prepare_create(body.path, body.mode, created_path_, session.identities);
    if (error != Errc::ok) return error;
    const bool ephemeral = is_ephemeral(body.mode);
    if (tree_.size() >= limits_.nodes_max) return Errc::too_many;
    if (!tree_.can_hold(acl_, limits_.acls_max)) return Errc::too_many;
    if (ephemeral && tree_.owned(session.id) >= limits_.ephemerals_per_session_max) {
        return Errc::too_many;
    }
    const bool counts = is_counted(created_path_);
    const auto bytes = static_cast<std::int64_t>(body.data.size());
    if (counts) error = judge_quotas(created_path_, body.data, bytes, 1);
    if (error != Errc::ok) return error;
    const NodeLife life(body.mode, session.id, body.ttl_ms);
    tree_.create(created_path_, body.data, life, txn.zxid, txn.time_ms, acl_);
    if (counts) count_change(created_path_, bytes, 1);
    outcome.path = created_path_;
    const std::optional<NodeView> node = tree_.find(created_path_);
    COORD_ASSERT(node.has_value() && node->stat.czxid == txn.zxid);
    COORD_ASSERT(node->acl == acl_);  // T9
    outcome.stat = node->stat;
    const bool hides = tree_.hides_some();
    if (recorder_ != nullptr) recorder_->on_change(EventType::created, *node, txn.zxid);
    changes.on_created(created_path_, txn.zxid, hides ? node->acl : BytesView());
    const BytesView above = hides ? tree_.parent_acl(created_path_) : BytesView();
    changes.on_children_changed(parent_path(created_path_), txn.zxid, above);
    return Errc::ok;
}

Errc Machine::remove(const Txn& txn, const SessionRecord& session, ChangeSink& changes) {
    BytesView path;
    std::int32_t version = 0;
    if (!detail::read_remove(txn.body, path, version)) return Errc::marshalling_error;
    const std::optional<NodeView> node = tree_.find(path);
    const Stat stat = node ? node->stat : Stat{};
    acl_.clear();
    if (node && tree_.hides_some()) acl_.assign(node->acl);
    const Errc error = tree_.remove(path, version, txn.zxid, session.identities);
    if (error != Errc::ok) return error;
    record_removal(path, stat, txn.zxid);
    tell_gone(path, txn.zxid, changes);
    return Errc::ok;
}

Errc Machine::set(const Txn& txn, const SessionRecord& session, Outcome& outcome,
                  ChangeSink& changes) {
    detail::SetBody body{};
    if (!detail::read_set(txn.body, body)) return Errc::marshalling_error;
    if (body.path == detail::config_path) {  // M16, whatever its ACL has become
        const std::optional<NodeView> node = tree_.find(body.path);
        COORD_ASSERT(node.has_value());
        const bool may = permits(node->acl, session.identities, permission::write);
        return may ? Errc::bad_arguments : Errc::no_auth;
    }
    const bool counts = is_counted(body.path);
    std::int64_t bytes = 0;
    Errc error = counts ? judge_set(txn, session, bytes) : Errc::ok;
    if (error != Errc::ok) return error;
    error = tree_.set(body.path, body.data, body.version, txn.zxid, txn.time_ms, &outcome.stat,
                      session.identities);
    if (error != Errc::ok) return error;
    COORD_ASSERT(outcome.stat.mzxid == txn.zxid);
    keep_acl(body.path);
    BytesView data = body.data;
    if (counts) {  // stats have become what the machine says
        count_change(body.path, bytes, 0);
        const std::optional<NodeView> node = tree_.find(body.path);
        COORD_ASSERT(node.has_value());
        outcome.stat = node->stat, data = node->data;
    }
    if (recorder_ != nullptr) record_set(body.path, data, outcome.stat, txn.zxid);
    changes.on_data_changed(body.path, txn.zxid, acl_);
    return Errc::ok;
}

// No watch hears of it.
COORD_RARE
Errc Machine::set_acl(const Txn& txn, const SessionRecord& session, Outcome& outcome) {
    detail::SetAclBody body{};
    if (!detail::read_set_acl(txn.body, body)) return Errc::marshalling_error;
    if (!is_valid_path(body.path)) return Errc::bad_arguments;
    const Errc error = resolve(body.acl, session);
    if (error != Errc::ok) return error;
    return tree_.set_acl(body.path, acl_, body.aversion, limits_.acls_max, &outcome.stat,
                         session.identities);
}

// -- What only parts of a multi do ---------------------------------------------------------------

// They are heard of by held_ alone (M6).
COORD_RARE
Errc Machine::execute_part(const Txn& txn, SessionRecord& session, Outcome& outcome) {
    switch (txn.op) {
        case OpCode::check_that: return check_that(txn, session, outcome);
        case OpCode::guard: return check_guard(txn);
        case OpCode::create_or_set: return create_or_set(txn, session, outcome);
        case OpCode::create_with_parents: return create_with_parents(txn, session, outcome);
        case OpCode::take_over: return take_over(txn, session, outcome);
        case OpCode::remove_all: return remove_all(txn, session);
        default: return execute(txn, session, outcome, held_);
    }
}

COORD_RARE
Errc Machine::check_that(const Txn& txn, const SessionRecord& session,
                         Outcome& outcome) const {
    detail::ConditionBody body{};
    if (!detail::read_condition(txn.body, body)) return Errc::marshalling_error;
    const bool is_sound = detail::is_known(body.condition) && is_valid_path(body.path);
    if (!is_sound) return Errc::bad_arguments;
    const std::optional<NodeView> node = tree_.find(body.path);
    if (body.condition == Condition::absent) return node ? Errc::node_exists : Errc::ok;
    if (!node) return Errc::no_node;
    if (!permits(node->acl, session.identities, permission::read)) return Errc::no_auth;
    outcome.stat = node->stat;
    bool holds = false;
    switch (body.condition) {
        case Condition::czxid: holds = node->stat.czxid.value == body.number; break;
        case Condition::owner: holds = node->stat.ephemeral_owner.value == body.number; break;
        case Condition::data:
            holds = is_null(node->data) == is_null(body.data) && node->data == body.data;
            break;
        case Condition::children:
            holds = static_cast<std::uint64_t>(node->stat.num_children) == body.number;
            break;
        case Condition::absent: break;
    }
    return holds ? Errc::ok : Errc::condition_failed;
}

COORD_RARE
Errc Machine::check_guard(const Txn& txn) const {
    Reader in(txn.body);
    const BytesView path = in.bytes(in.left());
    const Zxid czxid = in.zxid();
    if (!in.done()) return Errc::marshalling_error;
    if (!is_valid_path(path)) return Errc::bad_arguments;
    const std::optional<NodeView> node = tree_.find(path);
    return node && node->stat.czxid == czxid ? Errc::ok : Errc::guard_lost;  // M10
}

COORD_RARE
Errc Machine::create_or_set(const Txn& txn, SessionRecord& session, Outcome& outcome) {
    detail::CreateBody body{};
    if (!detail::read_create(txn.body, body)) return Errc::marshalling_error;
    if (!detail::is_kind(body) || is_sequential(body.mode)) return Errc::bad_arguments;
    if (!tree_.contains(body.path)) return create(txn, session, outcome, held_);
    Bytes as_set;
    Writer out(as_set);
    out.bytes(body.path);
    is_null(body.data) ? out.u32(detail::null_length) : out.bytes(body.data);
    out.i32(any_version);
    Txn one = txn;
    one.body = as_set;
    const Errc error = set(one, session, outcome, held_);
    COORD_ASSERT(error != Errc::ok || outcome.stat.mzxid == txn.zxid);
    COORD_ASSERT(error != Errc::no_node && error != Errc::bad_version);
    if (error == Errc::ok) outcome.path.assign(body.path.data(), body.path.size());
    return error;
}

// Where one of the creates fails, those before it are put back by the multi that this is in.
COORD_RARE
Errc Machine::create_with_parents(const Txn& txn, SessionRecord& session, Outcome& outcome) {
    detail::SpecialBody special{};
    detail::CreateBody body{};
    const bool is_read = detail::read_special(txn.op, txn.body, special) &&
                         detail::read_create(special.create, body);
    if (!is_read) return Errc::marshalling_error;
    const bool is_sound = detail::is_kind(body) && detail::is_sound_special(txn.op, special, body);
    if (!is_sound) return Errc::bad_arguments;
    Txn one = txn;
    Bytes above;
    const BytesView path = body.path;
    for (std::size_t end = 1; end < path.size(); end++) {
        if (path[end] != '/' || tree_.contains(path.substr(0, end))) continue;
        above.clear();
        Writer out(above);
        out.bytes(path.substr(0, end)), out.bytes({});
        out.i32(static_cast<std::int32_t>(special.parents));
        one.body = above;
        const Errc error = create(one, session, outcome, held_);
        if (error != Errc::ok) return error;
        COORD_ASSERT(outcome.stat.ephemeral_owner == SessionId{});  // T4
    }
    COORD_ASSERT(path.rfind('/') == BytesView::npos || tree_.contains(parent_path(path)));  // T1
    one.body = special.create;
    return create(one, session, outcome, held_);
}

// The node of a session that is gone has gone with it (M4): what is there is somebody else's then.
COORD_RARE
Errc Machine::take_over(const Txn& txn, SessionRecord& session, Outcome& outcome) {
    detail::SpecialBody special{};
    detail::CreateBody body{};
    const bool is_read = detail::read_special(txn.op, txn.body, special) &&
                         detail::read_create(special.create, body);
    if (!is_read) return Errc::marshalling_error;
    if (!detail::is_sound_special(txn.op, special, body)) return Errc::bad_arguments;
    Txn one = txn;
    one.body = special.create;
    const std::optional<NodeView> node = tree_.find(body.path);
    const SessionId owner = node ? node->stat.ephemeral_owner : SessionId{};
    if (owner == SessionId{} || owner != special.session) {
        return create(one, session, outcome, held_);  // or why not
    }
    const SessionRecord* const earlier = find_session(owner);
    COORD_ASSERT(earlier != nullptr);  // M3
    if (!is_same(earlier->password, special.password)) return Errc::auth_failed;
    Bytes as_remove;
    Writer(as_remove).bytes(body.path), Writer(as_remove).i32(any_version);
    one.body = as_remove;
    const Errc removed = remove(one, session, held_);
    if (removed != Errc::ok) return removed;
    one.body = special.create;
    const Errc error = create(one, session, outcome, held_);
    COORD_ASSERT(error != Errc::ok || outcome.stat.czxid == txn.zxid);            // M12
    COORD_ASSERT(error != Errc::ok || outcome.stat.ephemeral_owner == session.id);  // M12
    return error;
}

// All of it is looked at first, and who may remove the children of what has some. The last of a
// listing goes first, so that no parent goes before its children.
COORD_RARE
Errc Machine::remove_all(const Txn& txn, const SessionRecord& session) {
    BytesView path;
    std::int32_t version = 0;
    if (!detail::read_remove(txn.body, path, version)) return Errc::marshalling_error;
    if (!is_valid_path(path) || detail::is_built_in(path)) return Errc::bad_arguments;
    const std::optional<NodeView> node = tree_.find(path);
    if (!node) return Errc::no_node;
    const BytesView who = session.identities;
    if (!permits(tree_.parent_acl(path), who, permission::remove)) return Errc::no_auth;
    if (version != any_version && version != node->stat.version) return Errc::bad_version;
    if (removals_left_ == 0) return Errc::too_large;
    const Result<std::size_t> below = tree_.descendants(path, removals_left_ - 1);
    if (!below) return below.error();
    std::vector<Bytes> paths;
    paths.reserve(*below + 1);
    bool may = true;
    tree_.visit([&](const NodeView& each) {
        const bool is_parent = each.stat.num_children > 0;
        may = may && (!is_parent || permits(each.acl, who, permission::remove));
        paths.emplace_back(each.path);
    }, path);
    if (!may) return Errc::no_auth;
    COORD_ASSERT(paths.size() == *below + 1 && paths.size() <= removals_left_);  // M11
    removals_left_ -= paths.size();
    Txn one = txn;
    Bytes as_remove;
    for (; !paths.empty(); paths.pop_back()) {
        as_remove.clear();
        Writer out(as_remove);
        out.bytes(paths.back()), out.i32(any_version);
        one.body = as_remove;
        const Errc removed = remove(one, session, held_);
        COORD_ASSERT(removed == Errc::ok);  // M11
    }
    COORD_ASSERT(!tree_.contains(path));  // M11
    return Errc::ok;
}

COORD_RARE
void Machine::record_set(BytesView path, BytesView data, const Stat& stat, Zxid zxid) const {
    COORD_ASSERT(stat.mzxid == zxid);
    recorder_->on_change(EventType::data_changed, NodeView{path, data, stat, acl_}, zxid);
}

// Of a node that may go, where that is to be recorded or counted.
Stat Machine::recorded_stat(BytesView path) const {
    const bool is_needed = recorder_ != nullptr || has_quotas();
    const std::optional<NodeView> node =
        is_needed ? tree_.find(path) : std::optional<NodeView>();
    return node ? node->stat : Stat{};
}

void Machine::record_removal(BytesView path, const Stat& stat, Zxid zxid) {
    if (has_quotas()) count_change(path, -std::int64_t{stat.data_length}, -1);
    if (recorder_ == nullptr) return;
    COORD_ASSERT(stat.czxid != Zxid{} && stat.num_children == 0);
    recorder_->on_change(EventType::deleted, NodeView{path, {}, stat, acl_}, zxid);
}

// -- Quotas --------------------------------------------------------------------------------------
// A quota is on a path while its node of limits is there and holds a text that is one. They are
// derived from the tree; where there are none a write pays for two comparisons.

inline bool Machine::has_quotas() const { return quotas_ && !quotas_->by_path.empty(); }

inline bool Machine::is_counted(BytesView path) const {
    return has_quotas() || detail::starts_with(path, detail::quota_top);
}

bool Machine::is_quota(BytesView path) const {
    return has_quotas() && quotas_->by_path.find(path) != quotas_->by_path.end();
}

// Of a create, or a set that would succeed: quota_exceeded; or too_large, where a quota begins on a
// subtree that is too large to be counted now.
COORD_RARE
Errc Machine::judge_quotas(BytesView path, BytesView data, std::int64_t bytes,
                           std::int64_t nodes) {
    const BytesView subject = detail::quota_subject(path, detail::quota_limits);
    detail::QuotaLimits limits;
    if (!subject.empty() && !is_quota(subject) && detail::read_quota(data, limits)) {
        const Result<std::size_t> below = tree_.descendants(subject, count_left_);
        const bool is_too_large = !below && below.error() == Errc::too_large;
        counted_ += below ? *below : is_too_large ? count_left_ : 0;
        return is_too_large ? Errc::too_large : Errc::ok;
    }
    if (!has_quotas()) return Errc::ok;
    const auto found = quotas_->above(path);
    if (found == quotas_->by_path.end()) return Errc::ok;
    const detail::Quota& quota = found->second;
    const bool is_full =
        (nodes != 0 && detail::is_over(quota.limits.count_hard, quota.count, nodes)) ||
        (bytes != 0 && detail::is_over(quota.limits.bytes_hard, quota.bytes, bytes));
    return is_full ? Errc::quota_exceeded : Errc::ok;
}

// Before the version, as ZooKeeper does, and behind all else: what else is wrong the tree says.
COORD_RARE
Errc Machine::judge_set(const Txn& txn, const SessionRecord& session, std::int64_t& bytes) {
    detail::SetBody body{};
    const bool is_read = detail::read_set(txn.body, body);
    COORD_ASSERT(is_read);
    const std::optional<NodeView> node = tree_.find(body.path);
    if (!node || !permits(node->acl, session.identities, permission::write)) return Errc::ok;
    bytes = static_cast<std::int64_t>(body.data.size()) - node->stat.data_length;
    const Errc error = judge_quotas(body.path, body.data, bytes, 0);
    const bool fails = body.version != any_version && body.version != node->stat.version;
    return fails && error == Errc::too_large ? Errc::ok : error;
}

// A node has come, has gone, or has other data: so many bytes and nodes more.
COORD_RARE
void Machine::count_change(BytesView path, std::int64_t bytes, std::int64_t nodes) {
    if (detail::starts_with(path, detail::quota_top)) return follow_quota_node(path);
    add_to_quota(path, static_cast<std::uint64_t>(bytes), static_cast<std::uint64_t>(nodes));
    const auto found = quotas_->above(path);
    if (found == quotas_->by_path.end() || nodes < 0) return;
    const detail::Quota& quota = found->second;
    const bool is_over = (nodes != 0 && detail::is_over(quota.limits.count, quota.count, 0)) ||
                         (bytes != 0 && detail::is_over(quota.limits.bytes, quota.bytes, 0));
    over_quota_ += is_over ? 1u : 0u;
    COORD_ASSERT(nodes == 0 || !detail::is_over(quota.limits.count_hard, quota.count, 0));  // M15
    COORD_ASSERT(bytes == 0 || !detail::is_over(quota.limits.bytes_hard, quota.bytes, 0));  // M15
}

// Modulo 2^64: what is taken away is added, too.
void Machine::add_to_quota(BytesView path, std::uint64_t bytes, std::uint64_t nodes) {
    const auto found = quotas_->above(path);
    if (found == quotas_->by_path.end()) return;
    keep_quota(found->first);
    found->second.bytes += bytes, found->second.count += nodes;
    COORD_ASSERT(found->second.count < tree_.size());                             // M14
    COORD_ASSERT(found->second.count > 0 || found->second.bytes == 0);            // M14
    write_stats(found->first);
}

// A node in the place of limits or stats has come, gone or changed.
COORD_RARE
void Machine::follow_quota_node(BytesView path) {
    const BytesView counted = detail::quota_subject(path, detail::quota_stats);
    if (!counted.empty() && is_quota(counted)) return write_stats(counted);
    const BytesView subject = detail::quota_subject(path, detail::quota_limits);
    if (subject.empty()) return;
    const std::optional<NodeView> node = tree_.find(path);
    detail::QuotaLimits limits;
    const bool is_one = node && detail::read_quota(node->data, limits);
    if (is_one && !is_quota(subject)) begin_quota(subject);
    if (!is_one && is_quota(subject)) end_quota(subject);
    COORD_ASSERT(is_one == is_quota(subject));  // M14
    if (!is_one) return;
    keep_quota(subject);
    quotas_->by_path.find(subject)->second.limits = limits;
}

// What is there below other quotas is theirs; the rest has been counted by the one above, if any.
// Those that have counted nothing may be many, and are not looked at.
void Machine::begin_quota(BytesView path) {
    if (!quotas_) quotas_ = detail::Owned<Quotas>(new Quotas);
    detail::Quota quota;
    tree_.visit([&](const NodeView& node) {
        count_left_ -= (std::min)(count_left_, std::size_t{1});
        quota.count += 1, quota.bytes += node.data.size(), counted_ += 1;
        const auto other = quotas_->by_path.find(node.path);
        if (other == quotas_->by_path.end()) return;
        quota.count -= other->second.count, quota.bytes -= other->second.bytes;
    }, path);
    COORD_ASSERT(quota.count <= tree_.size());             // M14
    COORD_ASSERT(quota.count > 0 || quota.bytes == 0);     // M14
    add_to_quota(path, 0 - quota.bytes, 0 - quota.count);
    keep_quota(path);
    quotas_->by_path.emplace(Bytes(path), quota);
    write_stats(path);
}

void Machine::end_quota(BytesView path) {
    const auto found = quotas_->by_path.find(path);
    COORD_ASSERT(found != quotas_->by_path.end());
    keep_quota(path);
    const detail::Quota quota = found->second;
    quotas_->by_path.erase(found);
    add_to_quota(path, quota.bytes, quota.count);
}

// Its version, its times and its zxids stay, and nobody hears of it.
void Machine::write_stats(BytesView path) {
    const auto found = quotas_->by_path.find(path);
    COORD_ASSERT(found != quotas_->by_path.end());
    Bytes stats(detail::quota_top);
    stats.append(path).append(detail::quota_stats);
    const Bytes text = detail::stats_text(found->second, limits_);
    const std::optional<NodeView> node = tree_.find(stats);
    if (node && (is_null(node->data) || node->data != text)) tree_.put_data(stats, text);
}

void Machine::keep_quota(BytesView path) {
    if (!tree_.can_undo()) return;
    const auto found = quotas_->by_path.find(path);
    const bool is_there = found != quotas_->by_path.end();
    quotas_->undo.push_back({Bytes(path), is_there, is_there ? found->second : detail::Quota{}});
}

// At the end of a multi: M6.
COORD_RARE
void Machine::settle_quotas(bool is_put_back) {
    COORD_ASSERT(!tree_.can_undo());
    if (is_put_back) over_quota_ = 0;
    for (; is_put_back && !quotas_->undo.empty(); quotas_->undo.pop_back()) {
        const Quotas::Was& was = quotas_->undo.back();
        if (was.was_there) {
            quotas_->by_path[was.path] = was.quota;
        } else {
            quotas_->by_path.erase(was.path);
        }
    }
    quotas_->undo.clear();
}

// From the tree alone.
void Machine::find_quotas(Quotas& found) const {
    tree_.visit([&](const NodeView& node) {
        const BytesView subject = detail::quota_subject(node.path, detail::quota_limits);
        detail::Quota quota;
        if (subject.empty() || !detail::read_quota(node.data, quota.limits)) return;
        found.by_path.emplace(Bytes(subject), quota);
    }, detail::quota_top);
    for (const auto& [path, quota] : found.by_path) {
        if (found.above(parent_path(path)) != found.by_path.end()) continue;  // visited from there
        tree_.visit([&](const NodeView& node) {
            const auto above = found.above(node.path);
            COORD_ASSERT(above != found.by_path.end());
            above->second.count += 1, above->second.bytes += node.data.size();
        }, path);
    }
}

// RETURNS false where the stats nodes are not as they would have been saved.
bool Machine::adopt_quotas() {
    detail::Owned<Quotas> found(new Quotas);
    find_quotas(*found);
    if (found->by_path.empty()) return true;
    bool is_sound = true;
    for (const auto& [path, quota] : found->by_path) {
        const Bytes stats = Bytes(detail::quota_top) + path + Bytes(detail::quota_stats);
        const std::optional<NodeView> node = tree_.find(stats);
        const bool is_told = !node || (!is_null(node->data) &&
                                       node->data == detail::stats_text(quota, limits_));
        is_sound = is_sound && is_told;
    }
    quotas_ = std::move(found);
    return is_sound;
}

COORD_RARE
void Machine::audit_quotas() const {
    Quotas found;
    find_quotas(found);
    COORD_ASSERT(found.by_path.empty() == !has_quotas());  // M14
    if (!has_quotas()) return;
    COORD_ASSERT(found.by_path.size() == quotas_->by_path.size() && quotas_->undo.empty());
    for (const auto& [path, quota] : found.by_path) {
        const auto known = quotas_->by_path.find(path);
        COORD_ASSERT(known != quotas_->by_path.end());
        COORD_ASSERT(known->second.count == quota.count && known->second.bytes == quota.bytes);
        COORD_ASSERT(known->second.limits.count_hard == quota.limits.count_hard);
        COORD_ASSERT(known->second.limits.bytes_hard == quota.limits.bytes_hard);
        const Bytes stats = Bytes(detail::quota_top) + path + Bytes(detail::quota_stats);
        const std::optional<NodeView> node = tree_.find(stats);
        COORD_ASSERT(!node || node->data == detail::stats_text(quota, limits_));  // M14
    }
}

// FORMAT of a state: records as in chapter 3: the head first, the end last, the others in any
// order.
//
//   head     u64 "coordst4", u64 zxid, u64 digest of the state
//   session  u64 id, u64 nonce, u32 timeout in ms, u64 and u64: its password, u64 holder, u64
//            cxid, u64 confirmed, string identities, u32 outcomes; each u64 cxid, u64 zxid, u8
//            operation, i32 error, string path, the stat's eleven fields; where the operation is
//            multi u32 parts; each i32 error, string path, the stat's fields
//   node     as in chapter 3
//   voter    u32 id, u64 storage, u8 1 = its founding is not complete
//   end      u32 sessions, u32 nodes, u32 CRC32C of all before it
namespace detail {

constexpr std::uint64_t state_magic = 0x636f6f7264737434;  // FORMAT
constexpr std::size_t load_piece_bytes = 256 * 1024;

inline void write_stat(Writer& out, const Stat& stat) {
    out.zxid(stat.czxid), out.zxid(stat.mzxid);
    out.i64(stat.ctime_ms), out.i64(stat.mtime_ms);
    out.i32(stat.version), out.i64(stat.cversion), out.i32(stat.aversion);
    out.u64(stat.ephemeral_owner.value);
    out.i32(stat.data_length), out.i32(stat.num_children);
    out.zxid(stat.pzxid);
}

inline Stat read_stat(Reader& in) {
    Stat stat;
    stat.czxid = in.zxid(), stat.mzxid = in.zxid();
    stat.ctime_ms = in.i64(), stat.mtime_ms = in.i64();
    stat.version = in.i32(), stat.cversion = in.i64(), stat.aversion = in.i32();
    stat.ephemeral_owner = SessionId{in.u64()};
    stat.data_length = in.i32(), stat.num_children = in.i32();
    stat.pzxid = in.zxid();
    return stat;
}

}  // namespace detail

COORD_RARE
void Machine::save_session(const SessionRecord& session, Bytes& out) {
    const std::size_t start = detail::open_state_record(detail::StateRecord::session, out);
    Writer writer(out);
    writer.u64(session.id.value), writer.u64(session.nonce), writer.u32(session.timeout_ms);
    writer.u32(session.silent_ms);
    writer.u64(session.password.high), writer.u64(session.password.low);
    writer.u64(session.holder);
    writer.u64(session.cxid), writer.u64(session.confirmed);
    writer.bytes(session.identities);
    writer.u32(static_cast<std::uint32_t>(session.outcomes.size()));
    for (std::size_t i = 0; i < session.outcomes.size(); i++) {
        const Outcome& outcome = session.outcomes[i];
        writer.u64(outcome.cxid), writer.zxid(outcome.zxid);
        writer.u8(static_cast<std::uint8_t>(outcome.op));
        writer.i32(static_cast<std::int32_t>(outcome.error));
        writer.bytes(outcome.path);
        detail::write_stat(writer, outcome.stat);
        if (outcome.op != OpCode::multi) continue;
        writer.u32(static_cast<std::uint32_t>(outcome.parts.size()));
        for (const Part& part : outcome.parts) {
            writer.i32(static_cast<std::int32_t>(part.error));
            writer.bytes(part.path);
            detail::write_stat(writer, part.stat);
        }
    }
    detail::close_state_record(start, out);
}

void Machine::stop_saving() {
    is_saving_ = false;
    tree_.stop_saving();
    detail::give_back(saved_early_);
}

void Machine::begin_save() {
    COORD_ASSERT(!loading_);
    tree_.begin_save();
    is_saving_ = true;
    save_number_ += 1;
    save_zxid_ = applied_, save_next_ = SessionId{}, save_crc_ = 0;
    save_sessions_ = static_cast<std::uint32_t>(sessions_.size());
    save_nodes_ = static_cast<std::uint32_t>(tree_.size());
    saved_early_.clear();
    const std::size_t start = detail::open_state_record(detail::StateRecord::head, saved_early_);
    Writer writer(saved_early_);
    writer.u64(detail::state_magic), writer.zxid(applied_), writer.u64(digest());
    detail::close_state_record(start, saved_early_);
    voters_.save(saved_early_);
}

// One that was opened since counts as saved.
void Machine::save_before_change(SessionRecord& session) {
    if (!is_saving_ || session.saved_in == save_number_ || !(save_next_ < session.id)) return;
    save_session(session, saved_early_);
    session.saved_in = save_number_;
}

bool Machine::save_slice(std::size_t bytes, Bytes& out) {
    COORD_ASSERT(is_saving_ && tree_.is_saving());
    COORD_ASSERT(bytes > 0);
    const std::size_t start = out.size();
    out.append(saved_early_);
    saved_early_.clear();
    std::size_t work = out.size() - start;  // to pass over one is some, too
    auto next = sessions_.upper_bound(save_next_);
    for (; next != sessions_.end() && work < bytes; ++next) {
        const bool is_later = next->first.value > save_zxid_.value;
        if (is_later && !detail::may_be_local(next->first)) {  // opened since, as all that follow
            next = sessions_.upper_bound(SessionId{detail::local_id_bit - 1});
            if (next == sessions_.end()) break;
        }
        const SessionRecord& session = next->second;
        const std::size_t before = out.size();
        if (session.saved_in != save_number_) save_session(session, out);
        work += (std::max)(out.size() - before, std::size_t{8});
        save_next_ = session.id;
    }
    const bool has_more = next != sessions_.end();
    const std::size_t left = has_more || work >= bytes ? 0 : bytes - work;
    const bool done = tree_.save_slice(left, out);
    COORD_ASSERT(!done || !has_more);
    save_crc_ = crc32c(BytesView(out).substr(start), save_crc_);
    if (!done) return false;
    const std::size_t end = detail::open_state_record(detail::StateRecord::end, out);
    Writer writer(out);
    writer.u32(save_sessions_), writer.u32(save_nodes_), writer.u32(0);
    detail::close_state_record(end, out);
    const BytesView covered = BytesView(out).substr(end, out.size() - end - 4);
    writer.patch_u32(out.size() - 4, crc32c(covered, save_crc_));
    stop_saving();
    return true;
}

// -- Loading -------------------------------------------------------------------------------------

StateReader::StateReader(const Limits& limits) {
    const std::size_t path = std::size_t{limits.path_bytes_max} + detail::sequence_digits_max;
    const std::uint64_t parts = std::uint64_t{limits.multi_parts_max} + 1;
    const std::uint64_t session = parts * limits.requests_per_session_max * 2 * (path + 128);
    const std::uint64_t node = path + std::uint64_t{limits.data_bytes_max};
    const std::uint64_t record =
        (std::max)(node, session) + detail::acl_bytes_max(limits) + std::uint64_t{1024};
    record_bytes_max_ = static_cast<std::size_t>((std::min)(record, std::uint64_t{INT32_MAX}));
}

void StateReader::restart() {
    bytes_.clear();
    at_ = 0, crc_ = 0;
    begun_ = ended_ = false, sound_ = true;
}

void StateReader::feed(BytesView piece) {
    bytes_.erase(0, at_);
    at_ = 0;
    if (sound_) bytes_.append(piece);
}

bool StateReader::next(std::uint8_t& kind, BytesView& record) {
    if (!sound_ || at_ == bytes_.size()) return false;
    if (ended_) return sound_ = false;  // there is something behind the end
    Reader in(BytesView(bytes_).substr(at_));
    kind = in.u8();
    const std::uint32_t length = in.u32();
    if (in.ok() && length > record_bytes_max_) sound_ = false;
    if (!in.ok() || !sound_ || in.left() < length) return false;
    record = in.raw(length);
    const std::size_t size = detail::state_record_header_bytes + length;
    const std::size_t unchecked = kind == 0 ? (std::min)(length, std::uint32_t{4}) : 0;
    crc_ = crc32c(BytesView(bytes_).substr(at_, size - unchecked), crc_);
    at_ += size;
    return sound_ = take_frame(kind, record);
}

// Looks at the head and the end itself. RETURNS whether the record may stand here.
bool StateReader::take_frame(std::uint8_t kind, BytesView record) {
    const auto is = [kind](detail::StateRecord which) {
        return kind == static_cast<std::uint8_t>(which);
    };
    Reader in(record);
    if (!begun_) {
        begun_ = true;
        const bool known = is(detail::StateRecord::head) && in.u64() == detail::state_magic;
        zxid_ = in.zxid(), digest_ = in.u64();
        return known && in.done();
    }
    if (is(detail::StateRecord::end)) {
        ended_ = true;
        sessions_ = in.u32(), nodes_ = in.u32();
        return in.u32() == crc_ && in.done();
    }
    return is(detail::StateRecord::session) || is(detail::StateRecord::node) ||
           is(detail::StateRecord::voter);
}

StateCheck::StateCheck(const Limits& limits) : limits_(limits), reader_(limits) {}

void StateCheck::restart() { reader_.restart(), digest_ = 0, sessions_ = nodes_ = 0; }

void StateCheck::feed(BytesView piece) {
    reader_.feed(piece);
    std::uint8_t kind = 0;
    BytesView record;
    while (reader_.next(kind, record)) {
        if (kind == static_cast<std::uint8_t>(detail::StateRecord::node)) {
            std::uint64_t node = 0;
            if (!Tree::digest_of_record(record, limits_, node)) return reader_.refuse();
            digest_ += node, nodes_ += 1;
        } else if (kind == static_cast<std::uint8_t>(detail::StateRecord::session)) {
            session_.outcomes.clear();
            if (!Machine::read_session(record, limits_, session_)) return reader_.refuse();
            digest_ += Machine::digest_of(session_), sessions_ += 1;
        } else if (kind == static_cast<std::uint8_t>(detail::StateRecord::voter)) {
            VoterTable::Place place;
            if (!VoterTable::read(record, place)) return reader_.refuse();
            digest_ += VoterTable::digest_of(place);
        }
    }
}

bool StateCheck::is_sound(Zxid zxid) const {
    return reader_.is_whole() && reader_.zxid() == zxid && reader_.digest() == digest_ &&
           reader_.nodes() == nodes_ && reader_.sessions() == sessions_;
}

COORD_RARE
void Machine::reset() {
    stop_saving();
    tree_.reset();
    sessions_.clear(), nonces_.clear();
    sessions_digest_ = 0, applied_ = Zxid{};
    voters_.clear(), voters_digest_ = 0;
    quotas_ = {};
}

Errc Machine::load(BytesView state) {
    begin_load();
    while (!state.empty()) {
        const BytesView piece = state.substr(0, detail::load_piece_bytes);
        load_piece(piece);
        state.remove_prefix(piece.size());
    }
    return end_load();
}

void Machine::begin_load() {
    reset();
    tree_.begin_load();
    loading_ = detail::Owned<StateReader>(new StateReader(limits_));
}

bool Machine::load_piece(BytesView piece) {
    COORD_ASSERT(loading_);
    loading_->feed(piece);
    std::uint8_t kind = 0;
    BytesView record;
    bool sound = true;
    while (sound && loading_->next(kind, record)) {
        if (kind == static_cast<std::uint8_t>(detail::StateRecord::node)) {
            sound = tree_.load_node(record, limits_);
        } else if (kind == static_cast<std::uint8_t>(detail::StateRecord::session)) {
            sound = load_session(record);
        } else if (kind == static_cast<std::uint8_t>(detail::StateRecord::voter)) {
            sound = voters_.load(record);
        }
    }
    if (!sound) loading_->refuse();
    return loading_->is_sound();
}

Errc Machine::end_load() {
    COORD_ASSERT(loading_);
    const detail::Owned<StateReader> reader = std::move(loading_);
    applied_ = reader->zxid();
    voters_digest_ = voters_.digest();
    const bool sound = reader->is_whole() && reader->sessions() == sessions_.size() &&
                       reader->nodes() == tree_.size() && tree_.end_load() == Errc::ok &&
                       owns_all() && adopt_quotas() && is_config_sound() &&
                       reader->digest() == digest();
    if (!sound) reset();
    return sound ? Errc::ok : Errc::corrupt;
}

// M3: each ephemeral node's session is there. And none is younger than the state.
bool Machine::owns_all() const {
    std::size_t owned = 0;
    for (const auto& [id, session] : sessions_) {
        if (id.value > applied_.value && !detail::may_be_local(id)) return false;
        owned += tree_.owned(id);
    }
    return owned == tree_.owned_by_all();
}

COORD_RARE
bool Machine::read_session(BytesView record, const Limits& limits, SessionRecord& session) {
    Reader in(record);
    session.id = SessionId{in.u64()};
    session.nonce = in.u64(), session.timeout_ms = in.u32(), session.silent_ms = in.u32();
    session.password.high = in.u64(), session.password.low = in.u64();
    session.holder = in.u64();
    session.cxid = in.u64(), session.confirmed = in.u64();
    session.identities.assign(in.bytes(detail::acl_bytes_max(limits)));
    const bool has_any = !session.identities.empty();
    session.identities_hash = detail::hash_of_identities(session.identities);
    const std::uint32_t outcomes = in.u32();
    if (!in.ok() || session.id == SessionId{} || session.confirmed > session.cxid) return false;
    if (session.silent_ms > session.timeout_ms) return false;  // M9
    if (outcomes != session.cxid - session.confirmed) return false;  // M2
    const Errc judged =
        has_any ? detail::judge_identities(session.identities, limits) : Errc::ok;
    if (judged != Errc::ok) return false;
    const std::size_t path_max = std::size_t{limits.path_bytes_max} + detail::sequence_digits_max;
    for (std::uint32_t i = 0; i < outcomes && in.ok(); i++) {
        Outcome& outcome = session.outcomes.push();
        outcome = Outcome{};
        outcome.cxid = in.u64(), outcome.zxid = in.zxid();
        outcome.op = static_cast<OpCode>(in.u8());
        outcome.error = static_cast<Errc>(in.i32());
        outcome.path = Bytes(in.bytes(path_max));
        outcome.stat = detail::read_stat(in);
        outcome.session = session.id;
        const std::uint32_t parts = outcome.op == OpCode::multi ? in.u32() : 0;
        if (parts > limits.multi_parts_max) return false;
        for (std::uint32_t k = 0; k < parts && in.ok(); k++) {
            Part& part = outcome.parts.emplace_back();
            part.error = static_cast<Errc>(in.i32());
            part.path = Bytes(in.bytes(path_max));
            part.stat = detail::read_stat(in);
        }
        if (outcome.cxid != session.cxid - outcomes + 1 + i) return false;  // M2
    }
    return in.done();
}

COORD_RARE
bool Machine::load_session(BytesView record) {
    SessionRecord session;
    if (sessions_.size() >= limits_.sessions_max) return false;
    if (!read_session(record, limits_, session)) return false;
    if (find_session(session.id) != nullptr || find_nonce(session.nonce) != nullptr) return false;
    renew_digest(session);
    detail::number_at(nonces_, session.nonce) = session.id.value;
    sessions_.at_or_new(session.id) = std::move(session);
    return true;
}

COORD_RARE
void Machine::audit() const {
    tree_.audit();
    std::uint64_t digest_now = 0;
    for (const auto& [id, session] : sessions_) {
        COORD_ASSERT(id == session.id && session.confirmed <= session.cxid);
        COORD_ASSERT(nonces_.find(session.nonce) != nonces_.end());
        COORD_ASSERT(session.identities.empty() == (session.identities_hash == 0));  // M10
        COORD_ASSERT(session.digest == digest_of(session));
        COORD_ASSERT(session.lasting_digest == digest_lasting(session));
        digest_now += session.digest;
    }
    COORD_ASSERT(owns_all());  // M3
    COORD_ASSERT(digest_now == sessions_digest_ && nonces_.size() == sessions_.size());
    COORD_ASSERT(voters_.digest() == voters_digest_);  // M5
    COORD_ASSERT(is_config_sound());                   // M16
    audit_quotas();
}

// =================================================================================================
// Part Two, chapter 5: Watches
// =================================================================================================

namespace detail {
constexpr std::uint64_t watch_hash_seed = 0x77617463686573;
}

Watches::Watches(EventSink& events) : events_(events) {}

Watches::Place Watches::first_place(WatchKind kind, BytesView path) {
    return {hash64(path, detail::watch_hash_seed + static_cast<std::uint64_t>(kind)), 0};
}

// RETURNS the next one at that path from that place on, which is moved there; or null. Another path
// with the same hash is passed over.
const Watches::Watch* Watches::seek(const Table& table, BytesView path, Place& place) {
    auto entry = table.lower_bound(place);
    for (; entry != table.end() && entry->first.hash == place.hash; ++entry) {
        if (entry->second->path != path) continue;
        place = entry->first;
        return &*entry->second;
    }
    return nullptr;
}

void Watches::add(WatchKind kind, BytesView path, SessionId session, Watcher watcher) {
    COORD_ASSERT(watcher != nullptr && session != SessionId{});
    Place place = first_place(kind, path);
    place.number = added_++;
    const auto watch = detail::share(
        Watch{kind, Bytes(path), session, std::move(watcher)});
    watches_.emplace(place, watch);
    own_.at_or_new(session).emplace(place, watch);
    count_of(kind) += 1;
}

std::size_t Watches::count(SessionId session) const {
    const auto own = own_.find(session);
    return own == own_.end() ? 0 : own->second.size();
}

// A path counts where the first one of its first kind stands.
COORD_RARE
WatchCounts Watches::counts() const {
    WatchCounts counts{own_.size(), 0, watches_.size()};
    for (const auto& entry : watches_) {
        const Watch* first = nullptr;
        for (std::size_t kind = 0; kind < counts_.size() && first == nullptr; kind++) {
            Place place = first_place(static_cast<WatchKind>(kind), entry.second->path);
            first = seek(watches_, entry.second->path, place);
        }
        COORD_ASSERT(first != nullptr);
        counts.paths += first == &*entry.second ? 1u : 0u;
    }
    COORD_ASSERT(counts.paths <= counts.watchers && counts.sessions <= counts.watchers);  // W7
    return counts;
}

// The first rows of those that it is shown. However many there are, it keeps no more than it must.
struct Watches::Rows {
    struct Order {
        WatchOrder order;
        bool operator()(const Watch* a, const Watch* b) const {
            const int path = a->path.compare(b->path);
            const bool is_by_path = order == WatchOrder::by_path;
            if (is_by_path && path != 0) return path < 0;
            if (a->session != b->session) return a->session < b->session;
            return path != 0 ? path < 0 : a->kind < b->kind;
        }
    };
    void add(const Watch& watch) {
        const Order before{order};
        if (limit == 0 || !before(&after, &watch)) return;
        if (rows.size() == limit && before(std::prev(rows.end())->first, &watch)) return;
        rows[&watch] += 1;
        if (rows.size() > limit) rows.erase(std::prev(rows.end()));
    }
    WatchOrder order;
    Watch after;
    std::size_t limit;
    std::map<const Watch*, std::size_t, Order> rows{Order{order}};
};

COORD_RARE
std::vector<WatchRow> Watches::list(WatchOrder order, const WatchRow& after,
                                    std::size_t limit) const {
    Rows found{order, {after.kind, after.path, after.session, {}}, limit};
    const bool is_by_path = order == WatchOrder::by_path;
    for (const auto& [session, own] : own_) {
        if (!is_by_path && session < after.session) continue;
        if (!is_by_path && found.rows.size() == limit) break;  // what follows is behind them
        for (const auto& entry : own) found.add(*entry.second);
    }
    std::vector<WatchRow> rows;
    for (const auto& [watch, watchers] : found.rows) {
        rows.push_back({watch->session, watch->path, watch->kind, watchers});
    }
    COORD_ASSERT(rows.size() <= limit);  // W7
    return rows;
}

// The last hold on the watchers is let go when nothing looks at the tables any more: what they
// hold may call anything as it is destroyed.
void Watches::remove_session(SessionId session) {
    const auto own = own_.find(session);
    if (own == own_.end()) return;
    const Table ended = std::move(own->second);
    own_.erase(own);
    for (const auto& entry : ended) {
        count_of(entry.second->kind) -= 1;
        watches_.erase(entry.first);
    }
}

// One watcher less.
detail::Shared<Watches::Watch> Watches::take(Place place) {
    const auto entry = watches_.find(place);
    COORD_ASSERT(entry != watches_.end());
    detail::Shared<Watch> watch = std::move(entry->second);
    watches_.erase(entry);
    const auto own = own_.find(watch->session);
    COORD_ASSERT(own != own_.end() && count_of(watch->kind) > 0);
    const std::size_t taken = own->second.erase(place);
    COORD_ASSERT(taken == 1);
    if (own->second.empty()) own_.erase(own);
    count_of(watch->kind) -= 1;
    return watch;
}

COORD_RARE
std::size_t Watches::remove(WatcherType type, BytesView path, SessionId session, Zxid zxid) {
    constexpr struct {
        WatcherType type;
        EventType event;
    } kinds[] = {{WatcherType::data, EventType::data_watch_removed},
                 {WatcherType::children, EventType::child_watch_removed},
                 {WatcherType::persistent, EventType::persistent_watch_removed},
                 {WatcherType::persistent_recursive, EventType::persistent_watch_removed}};
    std::size_t removed = 0;
    for (std::size_t kind = 0; kind < counts_.size(); kind++) {
        if (type != WatcherType::any && type != kinds[kind].type) continue;
        Place place = first_place(static_cast<WatchKind>(kind), path);
        for (;; place.number += 1, removed += 1) {
            const auto own = own_.find(session);
            if (own == own_.end() || seek(own->second, path, place) == nullptr) break;
            const detail::Shared<Watch> watch = take(place);
            events_.on_event(session, {watch, &watch->watcher}, kinds[kind].event, path, zxid, {});
        }
    }
    return removed;
}

void Watches::fire(WatchKind kind, const Change& change) {
    COORD_ASSERT(change.type != EventType::none);
    if (count_of(kind) == 0) return;
    Place place = first_place(kind, change.path);
    for (; seek(watches_, change.path, place) != nullptr; place.number += 1) {
        const detail::Shared<Watch> watch = take(place);  // W1: it is out of the tables
        events_.on_event(watch->session, {watch, &watch->watcher}, change.type, change.path,
                         change.zxid, change.acl);
    }
}

// Those of that kind at one place, of a change perhaps elsewhere; they stay.
void Watches::tell(WatchKind kind, BytesView at, const Change& change) {
    COORD_ASSERT(change.type != EventType::none);
    if (count_of(kind) == 0) return;
    const Place first = first_place(kind, at);
    auto entry = watches_.lower_bound(first);
    for (; entry != watches_.end() && entry->first.hash == first.hash; ++entry) {
        const detail::Shared<Watch>& watch = entry->second;
        if (watch->path != at) continue;  // another path with the same hash
        events_.on_event(watch->session, {watch, &watch->watcher}, change.type, change.path,
                         change.zxid, change.acl);
    }
}

// Those at the node itself and then, where there are any, those above it, from below.
void Watches::tell_staying(const Change& change) {
    tell(WatchKind::persistent, change.path, change);
    tell_above(change);
}

void Watches::tell_above(const Change& change) {
    if (count_of(WatchKind::recursive) == 0) return;
    tell(WatchKind::recursive, change.path, change);
    for (BytesView at = change.path; at.size() > 1;) {
        at = parent_path(at);
        tell(WatchKind::recursive, at, change);
    }
}

void Watches::on_created(BytesView path, Zxid zxid, BytesView acl) {
    const Change change{EventType::created, path, zxid, acl};
    fire(WatchKind::data, change);
    tell_staying(change);
}

void Watches::on_deleted(BytesView path, Zxid zxid, BytesView acl) {
    const Change change{EventType::deleted, path, zxid, acl};
    fire(WatchKind::data, change);
    tell_staying(change);
    fire(WatchKind::children, change);
}

void Watches::on_data_changed(BytesView path, Zxid zxid, BytesView acl) {
    if (watches_.empty()) return;
    const Change change{EventType::data_changed, path, zxid, acl};
    fire(WatchKind::data, change);
    tell_staying(change);
}

void Watches::on_children_changed(BytesView path, Zxid zxid, BytesView acl) {
    const Change change{EventType::children_changed, path, zxid, acl};
    fire(WatchKind::children, change);
    tell(WatchKind::persistent, path, change);
}

namespace detail {
// Of the node that is there now, or of the one that was there.
COORD_RARE
static BytesView acl_at(BytesView path, const Tree& before, const Tree& after) {
    std::optional<NodeView> node = after.find(path);
    if (!node) node = before.find(path);
    return node ? node->acl : BytesView();
}
}  // namespace detail

EventType Watches::missed(WatchKind kind, BytesView path, const Tree& before, const Tree& after) {
    const std::optional<NodeView> old_node = before.find(path), new_node = after.find(path);
    if (!old_node && !new_node) return EventType::none;
    if (!old_node) return kind == WatchKind::data ? EventType::created : EventType::none;
    if (!new_node) return EventType::deleted;
    const Stat& was = old_node->stat;
    const Stat& is = new_node->stat;
    if (kind == WatchKind::data) {
        const bool changed = was.mzxid != is.mzxid || was.czxid != is.czxid;
        return changed ? EventType::data_changed : EventType::none;
    }
    const bool changed = was.pzxid != is.pzxid || was.czxid != is.czxid;
    return changed ? EventType::children_changed : EventType::none;
}

COORD_RARE
void Watches::catch_up(const Tree& before, const Tree& after, Zxid zxid) {
    for (const WatchKind kind : {WatchKind::data, WatchKind::children, WatchKind::persistent}) {
        std::map<Bytes, bool, std::less<>> paths;  // in order, each once
        for (const auto& entry : watches_) {
            if (entry.second->kind == kind) paths.emplace(entry.second->path, true);
        }
        const bool stays = kind == WatchKind::persistent;
        for (const auto& entry : paths) {
            const Bytes& path = entry.first;
            const EventType type = missed(stays ? WatchKind::data : kind, path, before, after);
            const BytesView acl = detail::acl_at(path, before, after);
            const Change change{type, path, zxid, acl};
            if (type != EventType::none && !stays) fire(kind, change);
            if (!stays) continue;
            if (type != EventType::none) tell(kind, path, change);
            const EventType below = missed(WatchKind::children, path, before, after);
            const bool has_changed = below == EventType::children_changed;
            if (has_changed) tell(kind, path, Change{below, path, zxid, acl});
        }
    }
    const bool any = count_of(WatchKind::recursive) > 0;
    if (any) catch_up_below(before, after, zxid);
}

// What there is now says what has changed: all that came or was set since, and that it is gone.
// Nothing that the watcher would have heard of is missing, but what came and went again. Of one
// that stays it is not known whether the node was there: its parent may say that it was not.
COORD_RARE
void Watches::add_since(Zxid zxid, Watched watched, BytesView path, SessionId session,
                        Watcher watcher, const Tree& tree, Zxid applied) {
    COORD_ASSERT(zxid <= applied && watcher != nullptr);
    const bool stays = watched == Watched::persistent;
    const std::optional<NodeView> node = tree.find(path);
    const Stat is = node ? node->stat : Stat{};
    EventType own = EventType::none, below = EventType::none;
    if (node && (watched == Watched::absence || (stays && zxid < is.czxid))) {
        own = EventType::created;
    } else if (zxid < is.mzxid && (watched == Watched::data || stays)) {
        own = EventType::data_changed;
    } else if (!node && watched != Watched::absence) {
        const std::optional<NodeView> parent = tree.find(parent_path(path));
        const bool never_was = stays && parent && parent->stat.pzxid <= zxid;
        own = never_was ? EventType::none : EventType::deleted;
    }
    if (zxid < is.pzxid && (watched == Watched::children || (stays && is.czxid < is.pzxid))) {
        below = EventType::children_changed;
    }
    const detail::Shared<Watcher> own_watcher = detail::share(std::move(watcher));
    const detail::Shared<const Watcher> watch(own_watcher, &*own_watcher);
    const Zxid own_zxid = !node ? applied : own == EventType::created ? is.czxid : is.mzxid;
    const BytesView acl = node ? node->acl : BytesView();
    const auto tell = [&](EventType type, Zxid of) {
        if (type != EventType::none) events_.on_event(session, watch, type, path, of, acl);
    };
    if (is.pzxid < own_zxid) tell(below, is.pzxid);
    tell(own, own_zxid);
    if (own_zxid <= is.pzxid) tell(below, is.pzxid);
    if (!stays && (own != EventType::none || below != EventType::none)) return;  // W1
    const WatchKind kind = stays                          ? WatchKind::persistent
                           : watched == Watched::children ? WatchKind::children
                                                          : WatchKind::data;
    add(kind, path, session, *watch);
}

// Whether a recursive one will hear of what happens at path, but for those at path itself.
bool Watches::is_watched_above(BytesView path) const {
    while (path.size() > 1) {
        path = parent_path(path);
        Place place = first_place(WatchKind::recursive, path);
        if (seek(watches_, path, place) != nullptr) return true;
    }
    return false;
}

// Where recursive ones are that have no other one above them, in order: none is below another.
std::vector<Bytes> Watches::recursive_tops() const {
    std::map<Bytes, bool, std::less<>> paths;
    for (const auto& entry : watches_) {
        if (entry.second->kind == WatchKind::recursive) paths.emplace(entry.second->path, true);
    }
    std::vector<Bytes> tops;
    for (const auto& entry : paths) {
        if (!is_watched_above(entry.first)) tops.push_back(entry.first);
    }
    return tops;
}

// What is there now, parents before their children; then what is not there any more, after them.
COORD_RARE
void Watches::catch_up_below(const Tree& before, const Tree& after, Zxid zxid) {
    const std::vector<Bytes> tops = recursive_tops();
    for (const Bytes& top : tops) {
        after.visit([&](const NodeView& node) {
            const EventType type = missed(WatchKind::data, node.path, before, after);
            if (type != EventType::none) tell_above({type, node.path, zxid, node.acl});
        }, top);
    }
    std::vector<BytesView> gone;
    for (const Bytes& top : tops) {
        before.visit([&](const NodeView& node) {
            if (!after.contains(node.path)) gone.push_back(node.path);
        }, top);
    }
    for (; !gone.empty(); gone.pop_back()) {
        const BytesView acl = detail::acl_at(gone.back(), before, after);
        tell_above({EventType::deleted, gone.back(), zxid, acl});
    }
}

// -- Streams -------------------------------------------------------------------------------------

namespace detail {

constexpr std::size_t history_block_bytes = 64 * 1024;
constexpr std::size_t look_through_bytes = 1024 * 1024;  // of what is kept, in one go

// A change as it is kept, in memory alone: this, and behind it the path and the data.
struct ChangeHead {
    Stat stat;
    Zxid zxid;
    std::uint32_t index = 0;
    std::uint32_t path_size = 0;
    std::uint32_t data_size = 0;
    std::uint32_t acl_size = 0;
    EventType type = EventType::none;
    bool is_null = false;
};
static_assert(std::is_trivially_copyable_v<ChangeHead>, "it is copied as bytes");

// Of a path as it is known here what is told below the root.
static void cut_root(std::size_t root_bytes, Bytes& path) {
    if (path.empty()) return;
    COORD_ASSERT(path.size() >= root_bytes);
    COORD_ASSERT(path.size() == root_bytes || path[root_bytes] == '/');  // C5
    path.erase(0, root_bytes);
    if (path.empty()) path = "/";
}

// Where in the blocks, which are numbered from the first that there ever was.
struct HistoryCursor {
    std::uint64_t block = 0;
    std::size_t offset = 0;
};

// What the copies of a Subscription share.
struct Subscriber {
    enum class Phase : std::uint8_t {
        waiting,  // nothing is there for it: a change at or below its path will wake it
        behind,   // to be looked through from its cursor on
        told,     // there is something, and it knows
        over
    };
    Subscriber() = default;
    Subscriber(Subscriber&&) = default;  // before it is known to a History
    ~Subscriber();

    SessionId session;
    std::uint64_t holding = 0;
    Bytes path;
    std::size_t root_bytes = 0;
    SubscribeOptions options;
    Callback<void()> wake;
    OnChange each;

    History* history = nullptr;  // that knows it; null where the replica is gone
    std::uint64_t number = 0;
    Phase phase = Phase::over;
    Errc error = Errc::ok;
    HistoryCursor cursor;
    ChangePosition position;
    bool is_queued = false;
    bool is_end_told = false;
};

// The newest changes, in blocks of bytes: the oldest block goes where there is no room. What has
// become of the tree is added to the last one and looked at later, all of it once for all readers
// that wait. Each of those is found by the path that it waits at.
class History final : public ChangeRecorder {
public:
    // Counts in calls what makes a poll due.
    using MayRead = Callback<bool(SessionId session, BytesView acl)>;
    History(std::size_t bytes_max, std::uint64_t& calls, MayRead may_read);
    ~History();
    // The state is that one, and how it came about is not known.
    void restart(Zxid zxid);
    void on_change(EventType type, const NodeView& node, Zxid zxid) override;
    void hold() override;
    void release(bool is_kept) override;
    void hold_change(ChangeHead head, const NodeView& node);

    // It is known by its number from here on until it is destroyed; with an error it is over.
    void add(Subscriber& subscriber, Errc error);
    void remove(Subscriber& subscriber);
    Subscriber* find(std::uint64_t number) const;  // null: it is gone
    std::size_t count(SessionId session) const;
    void end_session(SessionId session, Errc error);
    void end_all(Errc error);
    // A poll's share. Everything up to that zxid has been applied.
    void work(Zxid applied);
    bool has_work() const { return !behind_.empty() || !told_.empty(); }
    bool take_told(std::uint64_t& number);  // RETURNS false where there are no more to be told
    // budget: the bytes that may be looked through; what is left of them.
    Errc take(Subscriber& subscriber, std::size_t most, std::vector<Change>& changes,
              std::size_t& budget);
    ChangePosition position(const Subscriber& subscriber) const;
    void audit() const;

private:
    struct Block {
        Bytes bytes;
        std::size_t room = 0;
        ChangePosition end;  // after its last change
    };
    struct Kept {
        ChangeHead head;
        BytesView path;
        BytesView data;
        BytesView acl;
        std::size_t size = 0;
    };
    Bytes& make_room(std::size_t bytes, ChangePosition end);
    void drop_block(Bytes& memory);
    HistoryCursor end() const;
    static Kept kept_at(BytesView bytes);
    bool look(HistoryCursor& at, Kept& kept) const;
    bool is_for(const Subscriber& subscriber, const Kept& kept) const;
    bool seek(Subscriber& subscriber, Kept& kept, std::size_t& budget) const;
    static void pass(Subscriber& subscriber, const Kept& kept);
    static Change change_of(const Subscriber& subscriber, const Kept& kept);
    void settle(Subscriber& subscriber, bool is_more);
    void queue(Subscriber& subscriber);
    void notice();
    void wake(const Kept& kept);
    void tell(Subscriber& subscriber, Subscriber::Phase phase);
    void look_through(Subscriber& subscriber, std::size_t& budget);
    void leave(Subscriber& subscriber);
    void finish(Subscriber& subscriber, Errc error);

    const std::size_t bytes_max_;
    const std::size_t block_bytes_;
    std::uint64_t& calls_;
    const MayRead may_read_;
    Ring<Block> blocks_;
    std::uint64_t first_block_ = 0;  // the number of the one in front
    std::size_t bytes_ = 0;          // that the blocks have room for
    ChangePosition beginning_;       // every change after it is here
    Zxid zxid_;                      // of the newest change
    std::uint32_t next_index_ = 0;
    Bytes held_;
    std::vector<const Bytes*> acls_of_held_;  // null where a node is open to all
    std::map<Bytes, bool, std::less<>> held_acls_;
    bool is_holding_ = false;
    HistoryCursor noticed_;          // those who wait have been woken by what is before it
    Zxid noticed_zxid_;
    std::map<Bytes, Numbers, std::less<>> waiting_;  // numbers of subscribers, by path
    Ring<std::uint64_t> behind_;
    Ring<std::uint64_t> told_;       // that their callbacks are to tell
    Numbered<std::uint64_t, Subscriber*> subscribers_;
    Numbered<SessionId, Numbers> own_;  // those that are not over
    std::uint64_t added_ = 0;
};

History::History(std::size_t bytes_max, std::uint64_t& calls, MayRead may_read)
    : bytes_max_(bytes_max), block_bytes_((std::min)(history_block_bytes, bytes_max / 8 + 1)),
      calls_(calls), may_read_(std::move(may_read)) {}

History::~History() {
    end_all(Errc::replica_failed);
    for (const auto& entry : subscribers_) entry.second->history = nullptr;
}

COORD_RARE
void History::restart(Zxid zxid) {
    COORD_ASSERT(!is_holding_);
    first_block_ += blocks_.size();
    blocks_ = Ring<Block>();
    bytes_ = 0;
    beginning_ = ChangePosition(zxid);
    noticed_ = end();
    for (const auto& entry : subscribers_) {
        Subscriber& each = *entry.second;
        if (each.phase == Subscriber::Phase::over) continue;
        each.cursor = noticed_;
        if (position(each) < beginning_) finish(each, Errc::snapshot_needed);  // W4
    }
    noticed_zxid_ = zxid;
}

// The one that there is room for is kept however large it is (W6: by a change and no more).
Bytes& History::make_room(std::size_t bytes, ChangePosition end) {
    if (blocks_.empty() || blocks_.back().room - blocks_.back().bytes.size() < bytes) {
        notice();  // before anything goes that somebody waits for
        const std::size_t room = (std::max)(block_bytes_, bytes);
        Bytes memory;
        const std::size_t most = bytes_max_ - (std::min)(room, bytes_max_);
        while (!blocks_.empty() && bytes_ > most) drop_block(memory);
        if (memory.capacity() > 2 * room) Bytes().swap(memory);
        memory.clear();
        memory.reserve(room);
        Block& block = blocks_.push();
        block.bytes.swap(memory);
        block.room = room, bytes_ += room;
        noticed_ = this->end();
    }
    COORD_ASSERT(bytes_ <= bytes_max_ || blocks_.size() == 1);  // W6
    COORD_ASSERT(blocks_.back().end < end || blocks_.back().bytes.empty());  // W4
    blocks_.back().end = end;
    return blocks_.back().bytes;
}

void History::drop_block(Bytes& memory) {
    Block& block = blocks_.front();
    COORD_ASSERT(beginning_ < block.end && bytes_ >= block.room);
    beginning_ = block.end;
    bytes_ -= block.room;
    memory.swap(block.bytes);
    Bytes().swap(block.bytes);
    blocks_.pop();
    first_block_ += 1;
}

void History::on_change(EventType type, const NodeView& node, Zxid zxid) {
    if (zxid != zxid_) zxid_ = zxid, next_index_ = 0;
    ChangeHead head;
    head.stat = node.stat, head.zxid = zxid, head.index = next_index_++;
    head.path_size = static_cast<std::uint32_t>(node.path.size());
    head.data_size = static_cast<std::uint32_t>(node.data.size());
    head.acl_size = static_cast<std::uint32_t>(node.acl.size());
    head.type = type, head.is_null = is_null(node.data);
    const std::size_t size =
        sizeof(head) + node.path.size() + node.data.size() + node.acl.size();
    if (is_holding_) return hold_change(head, node);
    Bytes& out = make_room(size, ChangePosition(zxid, next_index_));
    out.append(reinterpret_cast<const char*>(&head), sizeof(head));
    out.append(node.path).append(node.data).append(node.acl);
}

// Without its ACL: many nodes may have the same one, and it may be large (W6).
void History::hold_change(ChangeHead head, const NodeView& node) {
    COORD_ASSERT(is_holding_);
    const Bytes* acl = nullptr;
    if (!node.acl.empty()) {
        auto known = held_acls_.find(node.acl);
        if (known == held_acls_.end()) known = held_acls_.emplace(Bytes(node.acl), true).first;
        acl = &known->first;
    }
    head.acl_size = 0;
    held_.append(reinterpret_cast<const char*>(&head), sizeof(head));
    held_.append(node.path).append(node.data);
    acls_of_held_.push_back(acl);
}

void History::hold() {
    COORD_ASSERT(!is_holding_ && held_.empty());
    is_holding_ = true;
}

void History::release(bool is_kept) {
    COORD_ASSERT(is_holding_);
    is_holding_ = false;
    BytesView left = is_kept ? BytesView(held_) : BytesView();
    for (std::size_t i = 0; !left.empty(); i++) {
        Kept kept = kept_at(left);
        const ChangePosition end(kept.head.zxid, kept.head.index + 1);
        COORD_ASSERT(i < acls_of_held_.size());
        const BytesView acl = acls_of_held_[i] == nullptr ? BytesView() : *acls_of_held_[i];
        kept.head.acl_size = static_cast<std::uint32_t>(acl.size());
        Bytes& out = make_room(kept.size + acl.size(), end);
        out.append(reinterpret_cast<const char*>(&kept.head), sizeof(kept.head));
        out.append(kept.path).append(kept.data).append(acl);
        left.remove_prefix(kept.size);
    }
    acls_of_held_.clear(), held_acls_.clear();
    give_back(held_);
}

HistoryCursor History::end() const {
    if (blocks_.empty()) return {first_block_, 0};
    return {first_block_ + blocks_.size() - 1, blocks_.back().bytes.size()};
}

History::Kept History::kept_at(BytesView bytes) {
    Kept kept;
    COORD_ASSERT(bytes.size() >= sizeof(kept.head));
    std::memcpy(&kept.head, bytes.data(), sizeof(kept.head));
    const std::size_t data = sizeof(kept.head) + kept.head.path_size;
    const std::size_t acl = data + kept.head.data_size;
    kept.size = acl + kept.head.acl_size;
    COORD_ASSERT(bytes.size() >= kept.size);
    kept.path = bytes.substr(sizeof(kept.head), kept.head.path_size);
    kept.data = bytes.substr(data, kept.head.data_size);
    kept.acl = bytes.substr(acl, kept.head.acl_size);
    return kept;
}

// RETURNS false at the end. Where a block ends it moves on to the next.
bool History::look(HistoryCursor& at, Kept& kept) const {
    COORD_ASSERT(at.block >= first_block_);
    std::uint64_t place = at.block - first_block_;
    if (place + 1 < blocks_.size() &&
        at.offset == blocks_[static_cast<std::size_t>(place)].bytes.size()) {
        at.block += 1, at.offset = 0, place += 1;
    }
    if (place >= blocks_.size()) return false;
    const BytesView bytes = blocks_[static_cast<std::size_t>(place)].bytes;
    COORD_ASSERT(at.offset <= bytes.size());
    if (at.offset == bytes.size()) return false;
    kept = kept_at(bytes.substr(at.offset));
    return true;
}

// Whether a change that is kept is one for that reader. All that is told has been asked for here.
bool History::is_for(const Subscriber& subscriber, const Kept& kept) const {
    const ChangePosition before(kept.head.zxid, kept.head.index);
    if (before < subscriber.position) return false;
    const BytesView top = subscriber.path;
    const bool is_at = top.size() == 1 || kept.path.size() == top.size() ||
                       (kept.path.size() > top.size() && kept.path[top.size()] == '/');
    if (!is_at || (top.size() > 1 && !starts_with(kept.path, top))) return false;
    return kept.acl.empty() || may_read_(subscriber.session, kept.acl);  // W3
}

// Moves on to the next change for a reader. RETURNS false at the end, and where enough has been
// looked through: that is never in the midst of a transaction.
bool History::seek(Subscriber& subscriber, Kept& kept, std::size_t& budget) const {
    while (look(subscriber.cursor, kept)) {
        if (is_for(subscriber, kept)) return true;
        if (budget == 0 && kept.head.zxid != subscriber.position.zxid) return false;
        budget -= (std::min)(budget, kept.size);
        pass(subscriber, kept);
    }
    return false;
}

void History::pass(Subscriber& subscriber, const Kept& kept) {
    const ChangePosition after(kept.head.zxid, kept.head.index + 1);
    if (subscriber.position < after) subscriber.position = after;
    subscriber.cursor.offset += kept.size;
}

Change History::change_of(const Subscriber& subscriber, const Kept& kept) {
    Change change;
    change.type = kept.head.type;
    change.path = Bytes(kept.path);
    cut_root(subscriber.root_bytes, change.path);
    if (subscriber.options.with_data) {
        change.bytes = Bytes(kept.data), change.is_null = kept.head.is_null;
    }
    change.stat = kept.head.stat;
    change.position = ChangePosition(kept.head.zxid, kept.head.index + 1);
    return change;
}

Errc History::take(Subscriber& subscriber, std::size_t most, std::vector<Change>& changes,
                   std::size_t& budget) {
    if (subscriber.error != Errc::ok) return subscriber.error;
    if (subscriber.phase == Subscriber::Phase::waiting || most == 0) return Errc::ok;
    if (subscriber.cursor.block < first_block_) {
        finish(subscriber, Errc::snapshot_needed);
        return subscriber.error;
    }
    Kept kept;
    bool is_more = false;
    for (;;) {
        is_more = seek(subscriber, kept, budget);
        const bool is_within = !changes.empty() && is_more &&
                               kept.head.zxid == changes.back().position.zxid;
        if (!changes.empty() && !is_within) {
            changes.back().is_last = true;
            changes.back().position.index = ChangePosition::whole;
        }
        const bool is_enough = changes.size() == most || (budget == 0 && !changes.empty());
        if (!is_more || is_enough) break;
        COORD_ASSERT(changes.empty() || changes.back().position.zxid <= kept.head.zxid);  // W4
        changes.push_back(change_of(subscriber, kept));
        budget -= (std::min)(budget, kept.size);
        pass(subscriber, kept);
    }
    if (!changes.empty() && subscriber.position < changes.back().position) {
        subscriber.position = changes.back().position;
    }
    settle(subscriber, is_more);
    return Errc::ok;
}

// Whoever has read on is told again where there is more, and waits where there is not.
void History::settle(Subscriber& subscriber, bool is_more) {
    const HistoryCursor last = end();
    const bool is_at_end =
        subscriber.cursor.block == last.block && subscriber.cursor.offset == last.offset;
    if (is_more || !is_at_end) return queue(subscriber);
    subscriber.phase = Subscriber::Phase::waiting;
    number_at(waiting_[subscriber.path], subscriber.number) = 1;
}

void History::queue(Subscriber& subscriber) {
    subscriber.phase = Subscriber::Phase::behind;
    calls_ += 1;
    if (!subscriber.is_queued) behind_.push() = subscriber.number;
    subscriber.is_queued = true;
}

// Of one that waits all that has been noticed is behind it.
ChangePosition History::position(const Subscriber& subscriber) const {
    const ChangePosition noticed(noticed_zxid_);
    const bool waits = subscriber.phase == Subscriber::Phase::waiting;
    return waits && subscriber.position < noticed ? noticed : subscriber.position;
}

COORD_RARE
void History::add(Subscriber& subscriber, Errc error) {
    COORD_ASSERT(subscriber.history == nullptr && subscriber.number == 0);
    const ChangePosition from = subscriber.options.from;
    subscriber.history = this;
    subscriber.number = ++added_;
    subscriber.position = from;
    subscribers_.at_or_new(added_) = &subscriber;
    if (error == Errc::ok && from < beginning_) error = Errc::snapshot_needed;
    if (error != Errc::ok) return finish(subscriber, error);
    std::size_t low = 0, high = blocks_.size();  // the first one that ends behind it
    while (low < high) {
        const std::size_t middle = low + (high - low) / 2;
        const bool is_before = !(from < blocks_[middle].end);
        low = is_before ? middle + 1 : low, high = is_before ? high : middle;
    }
    subscriber.cursor = low == blocks_.size() ? end() : HistoryCursor{first_block_ + low, 0};
    number_at(own_.at_or_new(subscriber.session), added_) = 1;
    settle(subscriber, false);
}

Subscriber* History::find(std::uint64_t number) const {
    const auto found = subscribers_.find(number);
    return found == subscribers_.end() ? nullptr : found->second;
}

// It is of no session any more, and waits for nothing.
COORD_RARE
void History::leave(Subscriber& subscriber) {
    if (subscriber.phase == Subscriber::Phase::waiting) {
        const auto waiting = waiting_.find(subscriber.path);
        COORD_ASSERT(waiting != waiting_.end());
        waiting->second.erase(subscriber.number);
        if (waiting->second.empty()) waiting_.erase(waiting);
    }
    const auto own = own_.find(subscriber.session);
    if (own == own_.end()) return;
    own->second.erase(subscriber.number);
    if (own->second.empty()) own_.erase(own);
}

COORD_RARE
void History::remove(Subscriber& subscriber) {
    COORD_ASSERT(subscriber.history == this && find(subscriber.number) == &subscriber);
    leave(subscriber);
    subscribers_.erase(subscriber.number);
    subscriber.history = nullptr;
}

std::size_t History::count(SessionId session) const {
    const auto own = own_.find(session);
    return own == own_.end() ? 0 : own->second.size();
}

COORD_RARE
void History::finish(Subscriber& subscriber, Errc error) {
    COORD_ASSERT(error != Errc::ok && subscriber.error == Errc::ok);
    subscriber.position = position(subscriber);
    leave(subscriber);
    subscriber.error = error;
    tell(subscriber, Subscriber::Phase::over);
}

COORD_RARE
void History::end_session(SessionId session, Errc error) {
    const auto own = own_.find(session);
    if (own == own_.end()) return;
    const Numbers ended = own->second;
    for (const auto& each : ended) finish(*find(each.first), error);
}

COORD_RARE
void History::end_all(Errc error) {
    for (const auto& entry : subscribers_) {
        if (entry.second->phase != Subscriber::Phase::over) finish(*entry.second, error);
    }
}

// What is new wakes those that wait for it.
void History::notice() {
    if (!waiting_.empty()) {
        Kept kept;
        while (!waiting_.empty() && look(noticed_, kept)) {
            wake(kept);
            noticed_.offset += kept.size;
        }
    }
    noticed_ = end();
}

void History::wake(const Kept& kept) {
    BytesView at = kept.path;
    for (bool is_top = false; !is_top; at = parent_path(at)) {
        is_top = at.size() == 1;
        const auto found = waiting_.find(at);
        if (found == waiting_.end()) continue;
        Numbers& numbers = found->second;
        for (auto each = numbers.begin(); each != numbers.end();) {
            Subscriber* const woken = find(each->first);
            COORD_ASSERT(woken != nullptr && woken->phase == Subscriber::Phase::waiting);
            if (!is_for(*woken, kept)) {
                ++each;
                continue;
            }
            woken->cursor = noticed_;
            woken->position = ChangePosition(kept.head.zxid, kept.head.index);
            each = numbers.erase(each);
            tell(*woken, Subscriber::Phase::told);
        }
        if (numbers.empty()) waiting_.erase(found);
    }
}

void History::tell(Subscriber& subscriber, Subscriber::Phase phase) {
    subscriber.phase = phase;
    calls_ += 1;
    told_.push() = subscriber.number;
}

void History::work(Zxid applied) {
    notice();
    noticed_zxid_ = applied;
    std::size_t budget = look_through_bytes;
    for (std::size_t left = behind_.size(); left > 0 && budget > 0; left--) {
        Subscriber* const subscriber = find(behind_.front());
        behind_.pop();
        if (subscriber != nullptr) look_through(*subscriber, budget);
    }
}

void History::look_through(Subscriber& subscriber, std::size_t& budget) {
    subscriber.is_queued = false;
    if (subscriber.phase != Subscriber::Phase::behind) return;
    if (subscriber.cursor.block < first_block_) return finish(subscriber, Errc::snapshot_needed);
    Kept kept;
    if (seek(subscriber, kept, budget)) return tell(subscriber, Subscriber::Phase::told);
    settle(subscriber, false);
}

bool History::take_told(std::uint64_t& number) {
    if (told_.empty()) return false;
    number = told_.front();
    told_.pop();
    return true;
}

COORD_RARE
void History::audit() const {
    std::size_t waiting = 0, own = 0;
    for (const auto& entry : waiting_) waiting += entry.second.size();
    for (const auto& entry : own_) own += entry.second.size();
    COORD_ASSERT(!is_holding_ && held_.empty());
    for (const auto& entry : subscribers_) {
        const Subscriber& each = *entry.second;
        COORD_ASSERT(each.history == this && each.number == entry.first);
        COORD_ASSERT((each.error != Errc::ok) == (each.phase == Subscriber::Phase::over));
        COORD_ASSERT(each.phase != Subscriber::Phase::behind || each.is_queued);
        own -= each.phase == Subscriber::Phase::over ? 0u : 1u;
        if (each.phase != Subscriber::Phase::waiting) continue;
        const auto found = waiting_.find(each.path);
        COORD_ASSERT(found != waiting_.end() && found->second.count(each.number) == 1);
        waiting -= 1;
    }
    COORD_ASSERT(waiting == 0 && own == 0);
    ChangePosition last = beginning_;
    HistoryCursor at{first_block_, 0};
    for (Kept kept; look(at, kept); at.offset += kept.size) {
        const ChangePosition after(kept.head.zxid, kept.head.index + 1);
        COORD_ASSERT(last < after);  // W4
        COORD_ASSERT(kept.head.index == 0 || last.zxid == kept.head.zxid);  // W5
        last = after;
    }
    COORD_ASSERT(blocks_.empty() || !(last < blocks_.back().end));
}

Subscriber::~Subscriber() {
    if (history != nullptr) history->remove(*this);
}

// Calls what a subscriber is told by. Its owner may let go of it in there, and hears no more then.
static void call_subscriber(History& history, std::uint64_t number) {
    Subscriber* subscriber = history.find(number);
    if (subscriber == nullptr) return;
    Callback<void()> wake = std::move(subscriber->wake);
    OnChange each = std::move(subscriber->each);
    if (wake) wake();
    std::vector<Change> changes;
    std::size_t left = each ? (std::max)(subscriber->options.changes_a_poll, std::size_t{1}) : 0;
    std::size_t budget = look_through_bytes;
    while ((subscriber = history.find(number)) != nullptr && left > 0 && budget > 0) {
        changes.clear();
        const Errc error = history.take(*subscriber, 1, changes, budget);
        if (error != Errc::ok && !subscriber->is_end_told) {
            subscriber->is_end_told = true;
            Change& ended = changes.emplace_back();
            ended.error = error, ended.position = subscriber->position;
        }
        left = changes.empty() ? 0 : left - 1;
        if (!changes.empty()) each(changes.front());
    }
    if (subscriber == nullptr) return;
    subscriber->wake = std::move(wake), subscriber->each = std::move(each);
}

}  // namespace detail

Subscription::Subscription(detail::Shared<detail::Subscriber> subscriber)
    : subscriber_(std::move(subscriber)) {}

Result<std::vector<Change>> Subscription::take(std::size_t most) const {
    std::vector<Change> changes;
    if (subscriber_ && subscriber_->history != nullptr) {
        std::size_t budget = detail::look_through_bytes;
        subscriber_->history->take(*subscriber_, most, changes, budget);
    }
    if (error() != Errc::ok) return error();
    return changes;
}

Errc Subscription::error() const { return subscriber_ ? subscriber_->error : Errc::api_error; }

ChangePosition Subscription::position() const {
    if (!subscriber_) return {};
    detail::History* const history = subscriber_->history;
    return history == nullptr ? subscriber_->position : history->position(*subscriber_);
}

// =================================================================================================
// Part Two, chapter 6: Storage
// =================================================================================================

#ifndef COORD_NO_FILES
}  // inline namespace COORD_ABI
}  // namespace coord

#ifdef _WIN32
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#else
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace coord {
inline namespace COORD_ABI {
#endif  // COORD_NO_FILES

namespace detail {
constexpr std::size_t dropped_at_once_max = 1000;  // records, or entries of a log, in one poll
}

Errc MemoryStorage::open(RecoverySink& sink, const StorageOwner& owner) {
    if (failed_) return Errc::storage_failed;
    if (id_ == 0) id_ = mix64(owner.entropy, owner.ensemble) | 1;
    crash();  // what was never durable belongs to a life that has ended
    discard(SIZE_MAX);
    Bytes head;
    for (std::size_t i = 0; i < items_.size(); i++) {
        const Sequence sequence = first_ + i;
        if (!items_[i].is_snapshot) sink.on_record(sequence, items_[i].bytes);
        if (!items_[i].is_snapshot || sequence != snapshot_) continue;
        head.clear();
        const Errc read = read_snapshot(sequence, 0, 64, head);
        COORD_ASSERT(read == Errc::ok);
        sink.on_snapshot(sequence, head, items_[i].snapshot.size);
    }
    return Errc::ok;
}

Errc MemoryStorage::start_over(std::uint64_t entropy) {
    if (failed_) return Errc::storage_failed;
    const std::uint64_t old = id_;
    const bool held = held_, full = full_;
    *this = MemoryStorage{};
    held_ = held, full_ = full, may_found_ = false;
    id_ = mix64(entropy, old) | 1;
    if (id_ == old) id_ ^= 2;  // S10
    return Errc::ok;
}

void MemoryStorage::roll_back(Sequence sequence) {
    COORD_ASSERT(sequence + 1 >= first_ && sequence >= snapshot_);
    crash();
    durable_ = (std::min)(durable_, sequence);
    crash();
}

MemoryStorage::Item& MemoryStorage::push(bool is_snapshot) {
    Item& pushed = items_.push();
    pushed.is_snapshot = is_snapshot;
    pushed.bytes.clear(), pushed.first_needed = 0;
    COORD_ASSERT(pushed.snapshot.pieces.empty());
    appended_ += 1;
    COORD_ASSERT(first_ + items_.size() == appended_ + 1);
    return pushed;
}

Errc MemoryStorage::append(BytesView record) {
    if (failed_) return Errc::storage_failed;
    push(false).bytes.assign(record.data(), record.size());
    bytes_ += record.size();
    discard(2);
    return Errc::ok;
}

// The list of the pieces is used again, too: none stays behind with an item that is a record next.
COORD_RARE
void MemoryStorage::give_up(Pieces& pieces) {
    bytes_ -= static_cast<std::size_t>(pieces.size);
    for (Bytes& piece : pieces.pieces) spare_.push_back(std::move(piece));
    pieces.pieces.clear(), pieces.size = 0;
    if (&pieces == &begun_) return;
    if (pieces.pieces.capacity() > spare_list_.capacity()) spare_list_.swap(pieces.pieces);
    std::vector<Bytes>().swap(pieces.pieces);
}

Errc MemoryStorage::begin_snapshot() {
    if (failed_) return Errc::storage_failed;
    give_up(begun_);
    if (begun_.pieces.capacity() < spare_list_.capacity()) begun_.pieces.swap(spare_list_);
    is_begun_ = true;
    return Errc::ok;
}

Errc MemoryStorage::write_snapshot(BytesView piece) {
    COORD_ASSERT(is_begun_);
    if (failed_) return Errc::storage_failed;
    bytes_ += piece.size(), begun_.size += piece.size();
    while (!piece.empty()) {
        if (begun_.pieces.empty() || begun_.pieces.back().size() == piece_bytes) {
            begun_.pieces.emplace_back();
            if (!spare_.empty()) begun_.pieces.back().swap(spare_.back()), spare_.pop_back();
            begun_.pieces.back().clear();
        }
        Bytes& last = begun_.pieces.back();
        const std::size_t taken = (std::min)(piece.size(), piece_bytes - last.size());
        last.append(piece.substr(0, taken));
        piece.remove_prefix(taken);
    }
    return Errc::ok;
}

Errc MemoryStorage::end_snapshot(Sequence first_needed, bool) {
    COORD_ASSERT(is_begun_ && first_needed <= appended_ + 1);
    if (failed_) return Errc::storage_failed;
    Item& ended = push(true);
    std::swap(ended.snapshot, begun_);
    ended.first_needed = first_needed;
    is_begun_ = false;
    return Errc::ok;
}

Errc MemoryStorage::read_snapshot(Sequence snapshot, std::uint64_t offset, std::size_t size,
                                  Bytes& out) {
    COORD_ASSERT(snapshot == 0 ? is_begun_ : snapshot >= first_ && snapshot <= appended_);
    if (failed_) return Errc::storage_failed;
    const Pieces& from = snapshot == 0 ? begun_ : item(snapshot).snapshot;
    while (size > 0 && offset < from.size) {
        const auto at = static_cast<std::size_t>(offset);
        const BytesView piece = from.pieces[at / piece_bytes];
        const BytesView part = piece.substr(at % piece_bytes, size);
        out.append(part);
        offset += part.size(), size -= part.size();
    }
    return Errc::ok;
}

// Never many at once: no caller waits for what a large log takes.
void MemoryStorage::discard(std::size_t items_max) {
    COORD_ASSERT(needed_ <= durable_ + 1);
    for (; first_ < needed_ && items_max > 0; first_ += 1, items_max -= 1) {
        bytes_ -= items_.front().bytes.size();
        give_up(items_.front().snapshot);
        items_.pop();
    }
}

Errc MemoryStorage::flush() {
    if (failed_) return Errc::storage_failed;
    flushed_ = appended_;
    if (!held_) release();
    return Errc::ok;
}

void MemoryStorage::release(Sequence sequence) {
    const Sequence reached = (std::min)(sequence, flushed_);
    if (failed_ || reached <= durable_) return;  // S2
    const Sequence older = snapshot_;
    for (Sequence s = durable_ + 1; s <= reached; s++) {
        if (!item(s).is_snapshot) continue;
        if (snapshot_ != 0 && snapshot_ >= first_) give_up(item(snapshot_).snapshot);  // S3
        snapshot_ = s;
    }
    durable_ = reached;
    if (snapshot_ != older) needed_ = (std::max)(needed_, item(snapshot_).first_needed);
    discard(detail::dropped_at_once_max);
}

void MemoryStorage::crash(std::size_t survivors) {
    const Sequence reached = (std::min)(appended_, durable_ + survivors);
    flushed_ = (std::max)(flushed_, reached);
    release(reached);
    for (; appended_ > durable_; appended_ -= 1) {  // S1: the tail and nothing else
        bytes_ -= items_.back().bytes.size();
        give_up(items_.back().snapshot);
        items_.pop_back();
    }
    give_up(begun_);
    is_begun_ = false;
    flushed_ = durable_;
    COORD_ASSERT(first_ + items_.size() == appended_ + 1 && durable_ == appended_);
}

#ifndef COORD_NO_FILES

namespace detail {

constexpr std::uint64_t log_magic = 0x636F6F72646C6F67u;       // FORMAT: "coordlog"
constexpr std::uint64_t snapshot_magic = 0x636F6F7264736E70u;  // FORMAT: "coordsnp"
constexpr std::uint64_t mark_magic = 0x636F6F72646D726Bu;      // FORMAT: "coordmrk"
constexpr std::uint32_t files_version = 1;                     // FORMAT
constexpr std::size_t file_header_bytes = 64;                  // FORMAT
constexpr std::size_t frame_header_bytes = 36;                 // FORMAT; and the zeros at the end
constexpr std::size_t marker_bytes = 21;                       // FORMAT
constexpr std::uint8_t frame_record = 1;                       // FORMAT
constexpr std::uint8_t frame_marker = 2;                       // FORMAT
constexpr std::size_t files_piece_bytes = 64 * 1024;           // read or written at once
constexpr std::uint64_t snapshot_sync_bytes = 4 * 1024 * 1024;  // so that no single sync is long
constexpr std::size_t spares_max = 2;
constexpr std::uint32_t spare_retry_flushes = 64;

struct FileHeader {
    std::uint32_t version = files_version;
    std::uint64_t ensemble = 0;
    std::uint64_t id = 0;
    Sequence sequence = 0;
    Sequence first_needed = 0;
    std::uint64_t size = 0;
    std::uint32_t crc = 0;
    bool replaces = false;
};

static void encode_file_header(std::uint64_t magic, const FileHeader& header, Bytes& out) {
    const std::size_t start = out.size();
    Writer writer(out);
    writer.u64(magic), writer.u32(header.version), writer.u64(header.ensemble);
    writer.u64(header.id), writer.u64(header.sequence), writer.u64(header.first_needed);
    writer.u64(header.size), writer.u32(header.crc);
    writer.u32(header.replaces ? std::uint32_t{1} << 24 : 0);
    writer.u32(crc32c(BytesView(out).substr(start)));
    COORD_ASSERT(out.size() == start + file_header_bytes);
}

// RETURNS whether it is a sound header of that kind, of whatever version.
static bool decode_file_header(std::uint64_t magic, BytesView bytes, FileHeader& header) {
    if (bytes.size() < file_header_bytes) return false;
    Reader in(bytes.substr(0, file_header_bytes));
    const bool is_kind = in.u64() == magic;
    header.version = in.u32(), header.ensemble = in.u64(), header.id = in.u64();
    header.sequence = in.u64(), header.first_needed = in.u64(), header.size = in.u64();
    header.crc = in.u32(), header.replaces = in.u32() != 0;
    return is_kind && in.u32() == crc32c(bytes.substr(0, file_header_bytes - 4));
}

static std::uint32_t salt_of(std::uint64_t id) {
    Bytes bytes;
    Writer(bytes).u64(id);
    return crc32c(bytes);
}

struct Frame {
    std::uint32_t size = 0;
    std::uint32_t body_crc = 0;
    Sequence sequence = 0;
    Sequence durable = 0;
    std::uint32_t chain = 0;
    std::uint8_t kind = 0;
    std::uint32_t crc = 0;
};

// RETURNS whether bytes start with a sound header; the body is not looked at.
static bool read_frame(BytesView bytes, std::uint32_t salt, Frame& frame) {
    if (bytes.size() < frame_header_bytes) return false;
    Reader in(bytes.substr(0, frame_header_bytes));
    frame.size = in.u32(), frame.body_crc = in.u32(), frame.sequence = in.u64();
    frame.durable = in.u64(), frame.chain = in.u32(), frame.kind = in.u8();
    in.raw(3);
    frame.crc = in.u32();
    return frame.crc == crc32c(bytes.substr(0, frame_header_bytes - 4), salt) &&
           frame.sequence != 0 && frame.durable < frame.sequence;
}

// Walks over the frames of a segment, as long as each is the next one of the chain.
struct FrameCursor {
    BytesView segment;
    std::uint32_t salt = 0;
    std::size_t offset = file_header_bytes;
    Sequence expected = 0;
    std::uint32_t chain = 0;
    Frame frame;
    BytesView body;

    FrameCursor(BytesView bytes, const FileHeader& header, std::uint32_t header_salt)
        : segment(bytes), salt(header_salt), expected(header.sequence), chain(header.crc) {}
    bool next() {
        COORD_ASSERT(offset >= file_header_bytes && offset <= segment.size());
        if (!read_frame(segment.substr(offset), salt, frame)) return false;
        if (frame.sequence != expected || frame.chain != chain) return false;
        const BytesView rest = segment.substr(offset + frame_header_bytes);
        if (frame.size > rest.size()) return false;
        body = rest.substr(0, frame.size);
        if (crc32c(body) != frame.body_crc) return false;
        offset += frame_header_bytes + frame.size;
        expected += 1, chain = frame.crc;
        return true;
    }
};

// Looks behind the last frame of a segment for sound headers of later ones, at every byte.
// RETURNS whether there is any; witness rises to what they know to have been durable (S8).
static bool find_later(BytesView segment, const FrameCursor& end, Sequence& witness) {
    bool found = false;
    const std::size_t count_max = segment.size() / frame_header_bytes;
    Frame frame;
    for (std::size_t at = end.offset; at + frame_header_bytes <= segment.size(); at++) {
        const std::uint64_t high = load_big32(&segment[at + 8]);
        const Sequence sequence = high << 32 | load_big32(&segment[at + 12]);
        if (sequence < end.expected || sequence - end.expected > count_max) continue;
        if (!read_frame(segment.substr(at), end.salt, frame)) continue;
        found = true, witness = (std::max)(witness, frame.durable);
    }
    return found;
}

static bool is_zero(BytesView bytes) { return bytes.find_first_not_of('\0') == BytesView::npos; }

static void append_digits(std::uint64_t number, Bytes& out) {
    char digits[17];
    std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(number));
    out.append(digits);
}

// RETURNS whether name is kind and those digits, of a number that a storage can ever come to.
static bool parse_name(BytesView name, BytesView kind, std::uint64_t& number) {
    if (name.size() != kind.size() + 16 || name.substr(0, kind.size()) != kind) return false;
    number = 0;
    for (const char digit : name.substr(kind.size())) {
        const std::size_t value = BytesView("0123456789abcdef").find(digit);
        if (value == BytesView::npos) return false;
        number = number << 4 | value;
    }
    return number <= INT64_MAX;
}

static Bytes joined(BytesView a, BytesView b, BytesView c) {
    Bytes out;
    out.reserve(a.size() + b.size() + c.size());
    out.append(a).append(b).append(c);
    return out;
}

static void insert_sorted(std::vector<std::uint64_t>& numbers, std::uint64_t number) {
    std::size_t at = numbers.size();
    while (at > 0 && numbers[at - 1] > number) at -= 1;
    numbers.insert(numbers.begin() + static_cast<std::ptrdiff_t>(at), number);
}

}  // namespace detail

// What open finds out and needs no longer afterwards.
struct FileStorage::Recovery {
    std::vector<Sequence> snapshots;   // files that there are
    bool has_temporary = false;
    bool has_mark = false;
    bool has_begun = false;            // to start over
    Bytes bytes;                       // one segment, or a piece of a snapshot
    std::size_t begin = 0;             // segments_ from begin to end are relied on
    std::size_t end = 0;
    Sequence first = 1;                // what is handed over of them
    Sequence last = 0;
    Sequence snapshot = 0;
    std::size_t tail = 0;              // where the frames of the last segment end
    bool is_torn = false;
};

// -------------------------------------------------------------------------------------------------
// Steps that can fail: false, and then failed_ says how and reason_ says where.

bool FileStorage::passed(Errc error, BytesView what) {
    if (error == Errc::ok) return true;
    const bool is_for_open = error == Errc::storage_full || error == Errc::storage_locked;
    failed_ = is_for_open && !is_open_ ? error : Errc::storage_failed;
    reason_ = detail::joined(what, ": ", files_->error_text());
    return false;
}

bool FileStorage::refuse(BytesView name, BytesView why) {
    report_.damage = detail::joined(name, ": ", why);
    failed_ = Errc::corrupt, reason_ = report_.damage;
    return false;
}

Bytes FileStorage::path_of(const char* kind, std::uint64_t number) const {
    Bytes path;
    return path_in(path, kind, number);
}

Bytes FileStorage::path_of(const char* name) const {
    Bytes path;
    return path_in(path, name);
}

// The same in a string that is there already: what goes on for ever allocates nothing.
const Bytes& FileStorage::path_in(Bytes& place, const char* name) const {
    const bool is_snapshot = BytesView(name).substr(0, 9) == "snapshot.";
    place = is_snapshot ? options_.snapshot_directory : options_.directory;
    return place.append("/").append(name);
}

const Bytes& FileStorage::path_in(Bytes& place, const char* kind, std::uint64_t number) const {
    path_in(place, kind);
    detail::append_digits(number, place);
    return place;
}

bool FileStorage::open_file(const Bytes& path, Files::Mode mode, FileId& file) {
    COORD_ASSERT(file == FileId{});
    const Result<FileId> opened = files_->open(path, mode);
    if (!opened) return passed(opened.error(), path);
    file = *opened;
    return true;
}

void FileStorage::close(FileId& file) {
    if (file != FileId{}) files_->close(file);
    file = {};
}

void FileStorage::close_all() {
    for (FileId* file : {&current_, &mark_, &begun_, &ended_, &lock_}) close(*file);
    segments_.clear(), snapshots_.clear(), spares_.clear();
    buffered_ = 0, piece_.clear(), reason_.clear();
    appended_ = 0, durable_ = 0, id_ = 0, chain_ = 0, idle_flushes_ = 0, spare_newest_ = 0;
    size_ = 0, offset_ = 0, files_made_ = 0;
    time_ = purged_at_ = Time{INT64_MIN / 4};
    is_purging_ = false, full_ = false, is_open_ = false, failed_ = Errc::ok, report_ = {};
    may_found_ = true, is_foreign_ = false;
}

bool FileStorage::sync(FileId file, BytesView what) {
    return !options_.sync || passed(files_->sync(file), what);
}

bool FileStorage::sync_names() {
    if (!options_.sync) return true;
    const Bytes& other = options_.snapshot_directory;
    return passed(files_->sync_directory(options_.directory), options_.directory) &&
           (other == options_.directory || passed(files_->sync_directory(other), other));
}

bool FileStorage::remove(const Bytes& path) { return passed(files_->remove(path), path); }

// -------------------------------------------------------------------------------------------------
// Opening: look at all, decide, hand over, and only then touch

COORD_RARE
FileStorage::FileStorage(FileStorageOptions options) : options_(std::move(options)) {
    COORD_ASSERT(options_.snapshots_kept >= 1);
    COORD_ASSERT(options_.segment_bytes >=
                 detail::file_header_bytes + 2 * detail::frame_header_bytes);
    if (options_.snapshot_directory.empty()) options_.snapshot_directory = options_.directory;
    if (options_.files == nullptr) own_files_ = system_files();
    files_ = own_files_ ? own_files_.get() : options_.files;
}

static FileStorageOptions files_options_at(BytesView directory) {
    FileStorageOptions options;
    options.directory = directory;
    return options;
}

COORD_RARE
FileStorage::FileStorage(BytesView directory) : FileStorage(files_options_at(directory)) {}

FileStorage::~FileStorage() { close_all(); }

COORD_RARE
Errc FileStorage::open(RecoverySink& sink, const StorageOwner& owner) {
    close_all();
    ensemble_ = owner.ensemble;
    Recovery found;
    COORD_ASSERT(lock_ == FileId{} && segments_.empty() && appended_ == 0);
    if (!list_files(found)) return failed_;
    if (found.has_begun) {  // what is there may be any part of what there was
        refuse(options_.directory + "/over.begun", "starting over was interrupted");
        return failed_;
    }
    if (segments_.empty() && found.snapshots.empty() && !found.has_mark) {
        is_open_ = give_birth(owner);
        return failed_;
    }
    if (!read_mark(found) || !read_log(found) || !read_snapshots(found)) return failed_;
    choose_any(found);
    if (!hand_over(found, sink)) return failed_;
    if (report_.damaged_at != 0) {
        reason_ = report_.damage;
        return failed_ = Errc::corrupt;  // S8
    }
    is_open_ = take_over(found);
    return failed_;
}

COORD_RARE
bool FileStorage::list_files(Recovery& found) {
    const Bytes& directory = options_.directory;
    const Bytes& other = options_.snapshot_directory;
    if (!passed(files_->make_directory(directory), directory)) return false;
    if (!passed(files_->make_directory(other), other)) return false;
    const Result<FileId> locked = files_->lock(path_of("lock"));
    if (!locked) return passed(locked.error(), path_of("lock"));
    lock_ = *locked;
    std::vector<Bytes> names;
    if (!passed(files_->list(directory, names), directory)) return false;
    if (other != directory && !passed(files_->list(other, names), other)) return false;
    std::uint64_t number = 0;
    std::vector<Sequence> segments;
    for (const Bytes& name : names) {
        const bool is_log = detail::parse_name(name, "log.", number) && number != 0;
        if (is_log) detail::insert_sorted(segments, number);
        if (detail::parse_name(name, "spare.", number)) detail::insert_sorted(spares_, number);
        if (detail::parse_name(name, "snapshot.", number)) {
            detail::insert_sorted(found.snapshots, number);
        }
        if (name == "snapshot.tmp") found.has_temporary = true;
        if (name == "mark") found.has_mark = true;
        if (name == "over.begun") found.has_begun = true;
        if (name == "over") may_found_ = false;
    }
    for (const Sequence first : segments) segments_.emplace_back().first = first;
    if (!spares_.empty()) spare_newest_ = spares_.back();
    return true;
}

// Files that belong to another ensemble, or were copied from another storage, are not touched.
COORD_RARE
bool FileStorage::is_ours(std::uint32_t version, std::uint64_t ensemble, std::uint64_t id,
                          BytesView name) {
    is_foreign_ = true;  // unless nothing below says so
    if (version != detail::files_version) return refuse(name, "written by another coord");
    if (ensemble != ensemble_) return refuse(name, "belongs to another ensemble");
    if (id_ == 0) id_ = id, salt_ = detail::salt_of(id);
    if (id != id_) return refuse(name, "belongs to another storage");
    is_foreign_ = false;
    return true;
}

// One that was torn or has rotted is no witness, and no harm.
COORD_RARE
bool FileStorage::read_mark(Recovery& found) {
    if (!found.has_mark) return true;
    const Bytes path = path_of("mark");
    FileId file;
    if (!open_file(path, Files::Mode::read, file)) return false;
    found.bytes.clear();
    const bool is_read =
        passed(files_->read(file, 0, detail::file_header_bytes, found.bytes), path);
    close(file);
    detail::FileHeader header;
    if (!is_read) return false;
    if (!detail::decode_file_header(detail::mark_magic, found.bytes, header)) return true;
    report_.certain = header.sequence;
    return is_ours(header.version, header.ensemble, header.id, path);
}

COORD_RARE
bool FileStorage::read_whole(const Bytes& path, Bytes& out) {
    FileId file;
    if (!open_file(path, Files::Mode::read, file)) return false;
    out.clear();
    const Result<std::uint64_t> size = files_->size(file);
    Errc error = size.error();
    if (size) error = files_->read(file, 0, static_cast<std::size_t>(*size), out);
    const bool is_read = passed(error, path);
    close(file);
    return is_read;
}

COORD_RARE
bool FileStorage::read_log(Recovery& found) {
    report_.segments = static_cast<std::uint32_t>(segments_.size());
    for (std::size_t i = 0; i < segments_.size(); i++) {
        if (!read_segment(i, found)) return false;
    }
    return true;
}

// Reads the frames of one segment, and notes the snapshots' markers among them.
COORD_RARE
bool FileStorage::read_segment(std::size_t index, Recovery& found) {
    COORD_ASSERT(index < segments_.size());
    Segment& segment = segments_[index];
    const Bytes path = path_of("log.", segment.first);
    segment.last = segment.first - 1;
    if (!read_whole(path, found.bytes)) return false;
    segment.size = found.bytes.size();
    detail::FileHeader header;
    if (!detail::decode_file_header(detail::log_magic, found.bytes, header)) return true;
    if (!is_ours(header.version, header.ensemble, header.id, path)) return false;
    if (header.sequence != segment.first) return true;  // under another one's name
    segment.is_sound = true;
    segment.follows = index > 0 && segments_[index - 1].last + 1 == segment.first &&
                      segments_[index - 1].chain == header.crc;
    detail::FrameCursor at(found.bytes, header, salt_);
    while (at.next()) {
        report_.certain = (std::max)(report_.certain, at.frame.durable);
        if (at.frame.kind != detail::frame_marker) continue;
        Reader in(at.body);
        Snapshot& noted = snapshots_.emplace_back();
        noted.sequence = at.frame.sequence, noted.first_needed = in.u64();
        noted.size = in.u64(), noted.crc = in.u32(), noted.replaces = in.u8() != 0;
        noted.segment = segment.first;
    }
    segment.last = at.expected - 1, segment.chain = at.chain;
    if (index + 1 == segments_.size()) judge_tail(at, found);
    return true;
}

// The end of the log: what comes next is either nothing, or a write that was never acknowledged
// and is cut, or was durable once and is damage (S8).
COORD_RARE
void FileStorage::judge_tail(const detail::FrameCursor& end, Recovery& found) {
    COORD_ASSERT(end.expected == segments_.back().last + 1);
    const BytesView rest = end.segment.substr(end.offset);
    const bool has_later = detail::find_later(end.segment, end, report_.certain);
    found.tail = end.offset;
    found.is_torn = has_later || !detail::is_zero(rest.substr(0, detail::frame_header_bytes));
    if (end.expected <= report_.certain) {
        report_.damaged_at = end.expected;
        report_.damage = path_of("log.", segments_.back().first);
        report_.damage += ": a record that was durable cannot be read";
    } else if (found.is_torn) {
        report_.torn_bytes = rest.find_last_not_of('\0') + 1;
    }
}

COORD_RARE
bool FileStorage::read_snapshots(Recovery& found) {
    for (Snapshot& snapshot : snapshots_) {
        const auto& there = found.snapshots;
        const bool exists = std::binary_search(there.begin(), there.end(), snapshot.sequence);
        if (exists && !read_through(snapshot, found)) return false;
        if (snapshot.is_sound) report_.snapshots_sound += 1;
        // An older one that is not there has been removed for a newer one.
        const bool is_newest = &snapshot == &snapshots_.back();
        if (!snapshot.is_sound && (exists || is_newest)) report_.snapshots_bad += 1;
    }
    return true;
}

// Reads all of a snapshot, and compares it with what its marker in the log says.
COORD_RARE
bool FileStorage::read_through(Snapshot& snapshot, Recovery& found) {
    const Bytes path = path_of("snapshot.", snapshot.sequence);
    FileId file;
    if (!open_file(path, Files::Mode::read, file)) return false;
    detail::FileHeader header;
    bool has_header = false;
    std::uint64_t offset = 0;
    std::uint32_t crc = 0;
    Errc error = Errc::ok;
    for (bool is_end = false; !is_end && error == Errc::ok;) {
        found.bytes.clear();
        error = files_->read(file, offset, detail::files_piece_bytes, found.bytes);
        BytesView piece = found.bytes;
        is_end = piece.size() < detail::files_piece_bytes;
        if (offset == 0) {
            has_header = detail::decode_file_header(detail::snapshot_magic, piece, header);
            is_end = is_end || !has_header;
            piece = piece.substr((std::min)(piece.size(), detail::file_header_bytes));
        }
        crc = crc32c(piece, crc);
        offset += found.bytes.size();
    }
    const bool is_read = passed(error, path);
    close(file);
    if (!is_read) return false;
    snapshot.is_sound = has_header && offset == detail::file_header_bytes + snapshot.size &&
                        crc == snapshot.crc && header.crc == crc && header.size == snapshot.size &&
                        header.sequence == snapshot.sequence &&
                        snapshot.first_needed <= snapshot.sequence &&
                        header.first_needed == snapshot.first_needed &&
                        header.replaces == snapshot.replaces;
    return !snapshot.is_sound || is_ours(header.version, header.ensemble, header.id, path);
}

// Looks for a beginning in the run of segments from begin to found.end: the newest sound snapshot
// up to limit that has the records it needs, or record 1. RETURNS whether there is one.
COORD_RARE
bool FileStorage::choose(std::size_t begin, Sequence limit, Recovery& found) {
    COORD_ASSERT(begin < found.end && found.end <= segments_.size());
    const Sequence run_first = segments_[begin].first;
    found.begin = begin, found.last = limit;
    for (std::size_t i = snapshots_.size(); i > 0; i--) {
        const Snapshot& snapshot = snapshots_[i - 1];
        if (snapshot.segment > segments_[found.end - 1].first) continue;  // another run's
        if (snapshot.segment < run_first) break;
        if (snapshot.sequence > limit) continue;
        if (snapshot.is_sound && snapshot.first_needed >= run_first) {
            found.snapshot = snapshot.sequence, found.first = snapshot.first_needed;
            return true;
        }
        if (!snapshot.replaces) continue;
        report_.damaged_at = snapshot.sequence;  // nothing older is worth anything
        report_.damage = path_of("snapshot.", snapshot.sequence);
        report_.damage += ": damaged, and nothing stands for it";
        found.last = limit = snapshot.sequence - 1;
    }
    found.snapshot = 0, found.first = 1;
    return segments_[begin].is_sound && run_first == 1;
}

// Segments follow each other in runs. What the newest run has no beginning for is damage, and an
// older run is then handed over up to there. A run that nothing needs is what a crash brought back.
COORD_RARE
void FileStorage::choose_any(Recovery& found) {
    for (found.end = segments_.size(); found.end > 0; found.end = found.begin) {
        std::size_t begin = found.end - 1;
        while (begin > 0 && segments_[begin].follows) begin -= 1;
        if (choose(begin, segments_[found.end - 1].last, found)) return;
        const Segment& first = segments_[begin];
        report_.damaged_at = begin == 0 ? 1 : segments_[begin - 1].last + 1;
        report_.damage = path_of("log.", first.first);
        report_.damage += first.is_sound ? ": records before it are missing" : ": a bad header";
    }
    if (report_.damaged_at == 0) {
        report_.damaged_at = 1;
        report_.damage = detail::joined(options_.directory, ": ", "the log is missing");
    }
    found.begin = 0, found.first = 1, found.last = 0, found.snapshot = 0;
}

// The one with its marker in that segment; in any where segment is 0.
const FileStorage::Snapshot* FileStorage::find_snapshot(Sequence sequence,
                                                        Sequence segment) const {
    for (const Snapshot& snapshot : snapshots_) {
        const bool is_there = segment == 0 || snapshot.segment == segment;
        if (snapshot.sequence == sequence && is_there) return &snapshot;
    }
    return nullptr;
}

COORD_RARE
bool FileStorage::hand_over(Recovery& found, RecoverySink& sink) {
    COORD_ASSERT(found.begin <= found.end && found.end <= segments_.size());
    COORD_ASSERT(found.snapshot == 0 || found.snapshot <= found.last);
    for (std::size_t i = found.begin; i < found.end; i++) {
        if (segments_[i].last < found.first) continue;
        if (!hand_over_segment(segments_[i], found, sink)) return false;
    }
    return true;
}

COORD_RARE
bool FileStorage::hand_over_segment(const Segment& segment, Recovery& found, RecoverySink& sink) {
    const Bytes path = path_of("log.", segment.first);
    detail::FileHeader header;
    if (!read_whole(path, found.bytes)) return false;
    detail::decode_file_header(detail::log_magic, found.bytes, header);
    detail::FrameCursor at(found.bytes, header, salt_);
    Bytes head;
    while (at.expected <= (std::min)(segment.last, found.last)) {
        if (!at.next()) return refuse(path, "reads otherwise than a moment ago");
        const Sequence sequence = at.frame.sequence;
        COORD_ASSERT(sequence + 1 == at.expected);
        if (sequence < found.first) continue;
        if (report_.first == 0) report_.first = sequence;
        report_.last = sequence;
        if (at.frame.kind == detail::frame_record) sink.on_record(sequence, at.body);
        if (sequence != found.snapshot) continue;
        report_.snapshot = sequence;
        if (!open_file(path_of("snapshot.", sequence), Files::Mode::read, ended_)) return false;
        if (read_snapshot(sequence, 0, 64, head) != Errc::ok) return false;
        const Snapshot* const snapshot = find_snapshot(sequence, segment.first);
        COORD_ASSERT(snapshot != nullptr);
        sink.on_snapshot(sequence, head, snapshot->size);
    }
    return true;
}

// A directory without any log is a new storage only where there is no mark, which is made last.
COORD_RARE
bool FileStorage::give_birth(const StorageOwner& owner) {
    COORD_ASSERT(segments_.empty() && appended_ == 0 && current_ == FileId{});
    report_.is_new = true;
    id_ = mix64(owner.entropy, owner.ensemble) | 1, salt_ = detail::salt_of(id_);
    for (const Bytes* directory : {&options_.directory, &options_.snapshot_directory}) {
        const Bytes parent = detail::joined(*directory, "/..", "");
        if (options_.sync && !passed(files_->sync_directory(parent), parent)) return false;
    }
    for (const std::uint64_t spare : spares_) {
        if (!remove(path_of("spare.", spare))) return false;
    }
    spares_.clear();
    const Errc error = start_segment(options_.segment_bytes);
    if (error == Errc::storage_full) failed_ = error, reason_ = path_of("log: no space");
    return failed_ == Errc::ok && open_mark(false) && sync(mark_, "mark") && sync_names() &&
           tend_reserve();
}

// A crash in the midst of it leaves over.begun behind: then open is corrupt, whatever else there
// is, and this is done once more. What was set aside before keeps its name.
COORD_RARE
Errc FileStorage::start_over(std::uint64_t entropy) {
    const bool may = is_open_ ? failed_ == Errc::ok : failed_ == Errc::corrupt && !is_foreign_;
    if (!may) return failed_ == Errc::ok ? Errc::storage_failed : failed_;
    const std::uint64_t old = id_, ensemble = ensemble_;
    const RecoveryReport before = report_;
    StorageOwner owner{ensemble, entropy};
    if ((mix64(entropy, ensemble) | 1) == old) owner.entropy += 1;  // S10
    const FileId lock = lock_;
    lock_ = {};
    close_all();
    lock_ = lock;
    const Bytes begun = options_.directory + "/over.begun", over = options_.directory + "/over";
    const Bytes& other = options_.snapshot_directory;
    const std::uint64_t id = mix64(owner.entropy, ensemble) | 1;
    FileId file;
    if (!open_file(begun, Files::Mode::create, file)) return failed_;
    const bool is_sure = sync(file, begun) && sync_names();
    close(file);
    if (!is_sure || !set_aside(options_.directory, id)) return failed_;
    if (other != options_.directory && !set_aside(other, id)) return failed_;
    if (!sync_names() || !give_birth(owner)) return failed_;
    COORD_ASSERT(id_ == id && id_ != old);  // S10
    if (!passed(files_->rename(begun, over), over) || !sync_names()) return failed_;
    may_found_ = false, is_open_ = true;
    report_.damage = before.damage, report_.damaged_at = before.damaged_at;
    return Errc::ok;
}

COORD_RARE
bool FileStorage::set_aside(const Bytes& directory, std::uint64_t id) {
    std::vector<Bytes> names;
    if (!passed(files_->list(directory, names), directory)) return false;
    for (const Bytes& name : names) {
        std::uint64_t number = 0;
        const bool is_of_it = detail::parse_name(name, "log.", number) ||
                              detail::parse_name(name, "snapshot.", number) ||
                              name == "snapshot.tmp" || name == "mark";
        const Bytes path = detail::joined(directory, "/", name);
        Bytes aside = directory + "/aside.";
        detail::append_digits(id, aside);
        aside.append(".").append(name);
        if (is_of_it && !passed(files_->rename(path, aside), path)) return false;
        if (detail::parse_name(name, "spare.", number) && !remove(path)) return false;
    }
    return true;
}

// Makes the storage what was handed over, durably (S8), and goes on behind it.
COORD_RARE
bool FileStorage::take_over(Recovery& found) {
    COORD_ASSERT(found.end == segments_.size() && found.begin < found.end);
    const Segment& last = segments_.back();
    COORD_ASSERT(last.is_sound && found.last == last.last && last.last >= report_.certain);
    appended_ = last.last, chain_ = last.chain;
    offset_ = found.tail, size_ = last.size;
    const Bytes path = path_of("log.", last.first);
    if (!open_file(path, Files::Mode::write, current_)) return false;
    if (found.is_torn && !cut_tail(path)) return false;
    if (!sync(current_, path)) return false;
    if (!remove_leftovers(found) || !sync_names()) return false;
    durable_ = appended_;
    return open_mark(found.has_mark) && retire() && tend_reserve();
}

COORD_RARE
bool FileStorage::cut_tail(const Bytes& path) {
    COORD_ASSERT(report_.damaged_at == 0 && offset_ <= size_);  // S8
    const Bytes zeros(detail::files_piece_bytes, '\0');
    for (std::uint64_t at = offset_; at < size_; at += zeros.size()) {
        const std::uint64_t left = (std::min)(size_ - at, std::uint64_t{zeros.size()});
        const BytesView piece(zeros.data(), static_cast<std::size_t>(left));
        if (!passed(files_->write(current_, at, piece), path)) return false;
    }
    return true;
}

// Removes what the run in use does not know: half-made files, and what came back after a crash.
COORD_RARE
bool FileStorage::remove_leftovers(const Recovery& found) {
    const auto run = segments_.begin() + static_cast<std::ptrdiff_t>(found.begin);
    const Sequence run_first = run->first;
    for (auto at = segments_.begin(); at != run; ++at, report_.leftovers++) {
        if (!remove(path_of("log.", at->first))) return false;
    }
    segments_.erase(segments_.begin(), run);
    COORD_ASSERT(!segments_.empty());
    std::vector<Snapshot> useful;
    const auto& there = found.snapshots;
    for (const Snapshot& snapshot : snapshots_) {
        const bool is_of_run = snapshot.segment >= run_first && snapshot.first_needed >= run_first;
        const bool exists = std::binary_search(there.begin(), there.end(), snapshot.sequence);
        if (is_of_run && exists) useful.push_back(snapshot);
    }
    snapshots_.swap(useful);
    for (const Sequence sequence : found.snapshots) {
        if (find_snapshot(sequence) != nullptr) continue;
        if (!remove(path_of("snapshot.", sequence))) return false;
        report_.leftovers += 1;
    }
    if (found.has_temporary && !remove(path_of("snapshot.tmp"))) return false;
    report_.leftovers += found.has_temporary ? 1 : 0;
    std::vector<std::uint64_t> kept;
    for (const std::uint64_t spare : spares_) {
        const Bytes path = path_of("spare.", spare);
        FileId file;
        if (!open_file(path, Files::Mode::read, file)) return false;
        const std::uint64_t size = files_->size(file).value_or(0);
        close(file);
        const bool is_fit = size == options_.segment_bytes && kept.size() < detail::spares_max;
        if (is_fit) kept.push_back(spare);
        if (!is_fit && !remove(path)) return false;
    }
    spares_ = kept;
    COORD_ASSERT(spares_.size() <= detail::spares_max);
    return true;
}

COORD_RARE
bool FileStorage::open_mark(bool exists) {
    const Bytes path = path_of("mark");
    const Files::Mode mode = exists ? Files::Mode::write : Files::Mode::create;
    return open_file(path, mode, mark_) && write_mark();
}

// -------------------------------------------------------------------------------------------------
// Writing

Errc FileStorage::append(BytesView record) {
    const Errc error = make_room(record.size());
    if (error == Errc::ok) append_frame(detail::frame_record, record);
    return error;
}

// Sees to it that a frame of that size fits where it goes. RETURNS storage_full, and then nothing
// has changed.
Errc FileStorage::make_room(std::size_t body_size) {
    if (failed_ != Errc::ok) return failed_;
    COORD_ASSERT(current_ != FileId{} && body_size <= UINT32_MAX);
    const std::uint64_t needed = 2 * detail::frame_header_bytes + std::uint64_t{body_size};
    if (offset_ + buffered_ + needed <= size_) return Errc::ok;
    if (!write_out()) return failed_;
    return start_segment(detail::file_header_bytes + needed);
}

void FileStorage::append_frame(std::uint8_t kind, BytesView body) {
    COORD_ASSERT(body.size() <= UINT32_MAX && durable_ <= appended_);
    appended_ += 1;
    char* const header = room_in_buffer(detail::frame_header_bytes + body.size());
    detail::store_big32(header, static_cast<std::uint32_t>(body.size()));
    detail::store_big32(header + 4, crc32c(body));
    detail::store_big64(header + 8, appended_);
    detail::store_big64(header + 16, options_.sync ? durable_ : 0);
    detail::store_big32(header + 24, chain_);
    detail::store_big32(header + 28, std::uint32_t{kind} << 24);
    chain_ = crc32c(BytesView(header, detail::frame_header_bytes - 4), salt_);
    detail::store_big32(header + 32, chain_);
    if (!body.empty()) std::memcpy(header + detail::frame_header_bytes, body.data(), body.size());
    COORD_ASSERT(offset_ + buffered_ + detail::frame_header_bytes <= size_);  // S5: the zeros
}

// Frames are made in place. There is always room for the zeros behind them.
char* FileStorage::room_in_buffer(std::size_t size) {
    const std::size_t needed = buffered_ + size + detail::frame_header_bytes;
    if (buffer_.size() < needed) buffer_.resize((std::max)(needed, buffer_.size() * 2));
    char* const room = &buffer_[buffered_];
    buffered_ += size;
    return room;
}

// What is appended goes into the file, with the zeros that say where it ends (S5).
bool FileStorage::write_out() {
    if (buffered_ == 0) return true;
    const std::size_t whole = buffered_ + detail::frame_header_bytes;
    COORD_ASSERT(current_ != FileId{} && offset_ >= detail::file_header_bytes);
    COORD_ASSERT(whole <= buffer_.size());
    std::memset(&buffer_[buffered_], 0, detail::frame_header_bytes);
    const Errc error = files_->write(current_, offset_, BytesView(buffer_).substr(0, whole));
    offset_ += buffered_;
    buffered_ = 0;
    return passed(error, "log");
}

Errc FileStorage::flush() {
    if (failed_ != Errc::ok) return failed_;
    COORD_ASSERT(current_ != FileId{} && durable_ <= appended_);
    if (durable_ < appended_) {
        if (!write_out() || !sync(current_, "log")) return failed_;
        durable_ = appended_;
        if (!write_mark()) return failed_;
    }
    return retire() && tend_reserve() ? Errc::ok : failed_;
}

bool FileStorage::write_mark() {
    COORD_ASSERT(mark_ != FileId{} && durable_ <= appended_);
    if (!options_.sync) return true;  // nothing is certain
    scratch_.clear();
    detail::FileHeader header;
    header.ensemble = ensemble_, header.id = id_, header.sequence = durable_;
    detail::encode_file_header(detail::mark_magic, header, scratch_);
    return passed(files_->write(mark_, 0, scratch_), "mark");
}

// Begins a segment of at least that size. REQUIRES that all that was appended is in the file.
// RETURNS storage_full, and then nothing has changed.
Errc FileStorage::start_segment(std::uint64_t size) {
    COORD_ASSERT(buffered_ == 0 && durable_ <= appended_);
    COORD_ASSERT(segments_.empty() || segments_.back().first <= appended_ + 1);
    size = (std::max)(size, options_.segment_bytes);
    if (size > options_.segment_bytes || spares_.empty()) {
        const Errc error = make_spare(size);
        if (error != Errc::ok) return error;
    }
    if (current_ != FileId{} && !sync(current_, "log")) return failed_;  // S5
    const Bytes& spare = path_in(path_, "spare.", spares_.back());
    const Bytes& path = path_in(new_path_, "log.", appended_ + 1);
    detail::FileHeader header;
    header.ensemble = ensemble_, header.id = id_, header.sequence = appended_ + 1;
    header.crc = chain_;
    scratch_.clear();
    detail::encode_file_header(detail::log_magic, header, scratch_);
    scratch_.append(detail::frame_header_bytes, '\0');
    close(current_);
    if (!open_file(spare, Files::Mode::write, current_)) return failed_;
    if (!passed(files_->write(current_, 0, scratch_), spare)) return failed_;
    if (!sync(current_, spare)) return failed_;
    close(current_);
    if (!passed(files_->rename(spare, path), path) || !sync_names()) return failed_;  // S4
    if (!open_file(path, Files::Mode::write, current_)) return failed_;
    spares_.pop_back();
    if (!segments_.empty() && segments_.back().first == header.sequence) segments_.pop_back();
    Segment& segment = segments_.emplace_back();
    segment.first = header.sequence, segment.size = size;
    size_ = size, offset_ = detail::file_header_bytes;
    files_made_ += 1;
    return Errc::ok;
}

Errc FileStorage::make_spare(std::uint64_t size) {
    COORD_ASSERT(size >= options_.segment_bytes);
    const Bytes& path = path_in(path_, "spare.", spare_newest_ + 1);
    const Result<FileId> file = files_->open(path, Files::Mode::create);
    const Errc error = file ? files_->allocate(*file, size) : file.error();
    const bool is_full = error == Errc::storage_full;
    if (!is_full) passed(error, path);  // says why
    if (file) files_->close(*file);
    if (is_full) is_purging_ = true;
    if (is_full && file && !remove(path)) return failed_;
    if (error != Errc::ok) return is_full ? error : failed_;
    spares_.push_back(++spare_newest_);
    return Errc::ok;
}

// One spare is in reserve, so that no append waits for the space of the next segment.
bool FileStorage::tend_reserve() {
    if (spares_.empty() && full_) idle_flushes_ += 1;
    const bool is_time = !full_ || idle_flushes_ >= detail::spare_retry_flushes;
    if (spares_.empty() && is_time) {
        idle_flushes_ = 0;
        make_spare(options_.segment_bytes);
    }
    full_ = spares_.empty();
    COORD_ASSERT(full_ || spares_.size() <= detail::spares_max);
    return failed_ == Errc::ok;
}

// One that has begun goes on until nothing is needless.
bool FileStorage::is_purge_due() const {
    return is_purging_ || time_ - purged_at_ >= options_.purge_interval;
}

// Keeps the newest sound snapshots and the log since the first record that one of them needs. While
// there are fewer, the log from its beginning stands for one; one that replaces needs none before.
// Of what is needless as many files go as were made since the last flush, and one more: so there is
// an end of them, and no caller waits for all of them at once.
bool FileStorage::retire() {
    COORD_ASSERT(durable_ == appended_ && buffered_ == 0);  // S7
    const std::size_t files_max = files_made_ + 1;
    files_made_ = 0;
    if (!is_purge_due()) return true;
    std::size_t kept = snapshots_.size();
    std::uint32_t count = 0;
    Sequence needed = UINT64_MAX;
    bool is_enough = false;
    while (kept > 0 && !is_enough) {
        const Snapshot& snapshot = snapshots_[--kept];
        COORD_ASSERT(snapshot.sequence <= durable_);  // S7
        if (!snapshot.is_sound) continue;
        count += 1, needed = (std::min)(needed, snapshot.first_needed);
        is_enough = count == options_.snapshots_kept || snapshot.replaces;
    }
    const bool is_log_longer = segments_.size() > 1 && segments_[1].first <= needed;
    if (!is_enough || (kept == 0 && !is_log_longer)) return is_purging_ = false, true;
    if (!is_purging_) purged_at_ = time_;
    is_purging_ = true;
    const std::size_t gone = (std::min)(kept, files_max);
    for (std::size_t i = 0; i < gone; i++) {
        if (!remove(path_in(path_, "snapshot.", snapshots_[i].sequence))) return false;
    }
    snapshots_.erase(snapshots_.begin(), snapshots_.begin() + static_cast<std::ptrdiff_t>(gone));
    return retire_segments(needed, files_max - gone);
}

bool FileStorage::retire_segments(Sequence needed, std::size_t files_max) {
    COORD_ASSERT(needed <= durable_ + 1);
    std::size_t gone = 0;
    bool is_renamed = false;
    while (gone < files_max && gone + 1 < segments_.size() && segments_[gone + 1].first <= needed) {
        const Segment& segment = segments_[gone++];
        const Bytes& path = path_in(path_, "log.", segment.first);
        if (segment.size == options_.segment_bytes && spares_.size() < detail::spares_max) {
            const Bytes& spare = path_in(new_path_, "spare.", spare_newest_ + 1);
            if (!passed(files_->rename(path, spare), spare)) return false;
            spares_.push_back(++spare_newest_);
            is_renamed = true;
        } else if (!remove(path)) {
            return false;
        }
    }
    segments_.erase(segments_.begin(), segments_.begin() + static_cast<std::ptrdiff_t>(gone));
    COORD_ASSERT(!segments_.empty());
    return !is_renamed || sync_names();  // S4: before anything is written into a spare
}

// -------------------------------------------------------------------------------------------------
// Snapshots

// No room for a snapshot is no failure: it is given up, the log is as it was.
Errc FileStorage::give_up_snapshot(Errc error) {
    const Bytes& path = path_in(path_, "snapshot.tmp");
    if (error != Errc::ok && error != Errc::storage_full) {
        passed(error, path);
        return failed_;
    }
    close(begun_);
    piece_.clear();
    if (error == Errc::storage_full) is_purging_ = true;
    return remove(path) ? error : failed_;
}

Errc FileStorage::begin_snapshot() {
    if (failed_ != Errc::ok) return failed_;
    if (begun_ != FileId{} && give_up_snapshot(Errc::ok) != Errc::ok) return failed_;
    written_ = 0, synced_ = 0, crc_ = 0;
    COORD_ASSERT(piece_.empty());
    const Bytes& path = path_in(path_, "snapshot.tmp");
    const Result<FileId> file = files_->open(path, Files::Mode::create);
    if (!file) return give_up_snapshot(file.error());
    begun_ = *file;
    return Errc::ok;
}

Errc FileStorage::write_snapshot(BytesView piece) {
    if (failed_ != Errc::ok) return failed_;
    COORD_ASSERT(begun_ != FileId{});
    while (!piece.empty()) {
        const BytesView part = piece.substr(0, detail::files_piece_bytes - piece_.size());
        piece_.append(part);
        piece.remove_prefix(part.size());
        if (piece_.size() < detail::files_piece_bytes) continue;
        const Errc error = write_piece();
        if (error != Errc::ok) return error;
    }
    return Errc::ok;
}

Errc FileStorage::write_piece() {
    COORD_ASSERT(begun_ != FileId{} && piece_.size() <= detail::files_piece_bytes);
    Errc error = files_->write(begun_, detail::file_header_bytes + written_, piece_);
    crc_ = crc32c(piece_, crc_), written_ += piece_.size();
    piece_.clear();
    if (error == Errc::ok && options_.sync && written_ - synced_ >= detail::snapshot_sync_bytes) {
        synced_ = written_, error = files_->sync(begun_);
    }
    return error == Errc::ok ? error : give_up_snapshot(error);
}

Errc FileStorage::end_snapshot(Sequence first_needed, bool replaces) {
    if (failed_ != Errc::ok) return failed_;
    COORD_ASSERT(begun_ != FileId{} && first_needed <= appended_ + 1);
    Errc error = write_piece();
    if (error != Errc::ok) return error;
    COORD_ASSERT(piece_.empty() && synced_ <= written_);
    error = make_room(detail::marker_bytes);
    if (error != Errc::ok) return failed_ != Errc::ok ? failed_ : give_up_snapshot(error);
    detail::FileHeader header;
    header.ensemble = ensemble_, header.id = id_, header.sequence = appended_ + 1;
    header.first_needed = first_needed, header.replaces = replaces;
    header.size = written_, header.crc = crc_;
    scratch_.clear();
    detail::encode_file_header(detail::snapshot_magic, header, scratch_);
    error = files_->write(begun_, 0, scratch_);
    if (error == Errc::ok && options_.sync) error = files_->sync(begun_);
    if (error != Errc::ok) return give_up_snapshot(error);
    const Bytes& path = path_in(new_path_, "snapshot.", header.sequence);
    error = files_->rename(path_in(path_, "snapshot.tmp"), path);
    if (error != Errc::ok) return give_up_snapshot(error);
    if (!sync_names()) return failed_;  // S6
    close(ended_);
    std::swap(ended_, begun_);
    scratch_.clear();
    Writer marker(scratch_);
    marker.u64(first_needed), marker.u64(written_), marker.u32(crc_), marker.u8(replaces ? 1 : 0);
    append_frame(detail::frame_marker, scratch_);
    COORD_ASSERT(appended_ == header.sequence);  // S6: the marker names the file
    COORD_ASSERT(snapshots_.empty() || snapshots_.back().sequence < appended_);
    snapshots_.push_back({appended_, first_needed, written_, crc_, replaces, true,
                          segments_.back().first});
    files_made_ += 1;
    return Errc::ok;
}

Errc FileStorage::read_snapshot(Sequence snapshot, std::uint64_t offset, std::size_t size,
                                Bytes& out) {
    if (failed_ != Errc::ok) return failed_;
    COORD_ASSERT(snapshot == 0 ? begun_ != FileId{} : ended_ != FileId{});
    if (snapshot == 0 && !piece_.empty()) {
        const Errc error = write_piece();
        if (error != Errc::ok) return error;
    }
    const FileId file = snapshot == 0 ? begun_ : ended_;
    passed(files_->read(file, detail::file_header_bytes + offset, size, out), "snapshot");
    return failed_;
}

Bytes RecoveryReport::text() const {
    using Number = unsigned long long;  // as printf knows them
    char line[320];
    std::snprintf(line, sizeof line,
                  "%srecords %llu to %llu, snapshot %llu, durable for certain %llu, segments %u, "
                  "snapshots sound %u bad %u, torn bytes %llu, leftovers %u, damaged at %llu ",
                  is_new ? "a new storage, " : "", Number{first}, Number{last}, Number{snapshot},
                  Number{certain}, segments, snapshots_sound, snapshots_bad, Number{torn_bytes},
                  leftovers, Number{damaged_at});
    return line + damage;
}

// -------------------------------------------------------------------------------------------------
// The operating system

namespace detail {

class SystemFiles final : public Files {
public:
    Result<FileId> open(BytesView path, Mode mode) override;
    void close(FileId file) override;
    Result<std::uint64_t> size(FileId file) override;
    Errc read(FileId file, std::uint64_t offset, std::size_t size, Bytes& out) override;
    Errc write(FileId file, std::uint64_t offset, BytesView bytes) override;
    Errc allocate(FileId file, std::uint64_t size) override;
    Errc sync(FileId file) override;
    Errc rename(BytesView from, BytesView to) override;
    Errc remove(BytesView path) override;
    Errc make_directory(BytesView path) override;
    Errc sync_directory(BytesView path) override;
    Errc list(BytesView directory, std::vector<Bytes>& names) override;
    Result<FileId> lock(BytesView path) override;
    const char* error_text() const override { return text_; }

private:
    Errc error(const char* call);      // the system's last one
    Errc write_zeros(FileId file, std::uint64_t size);
    char text_[160] = "";
#ifndef _WIN32
    int open_descriptor(BytesView path, int flags);
    Bytes path_, new_path_;            // with a zero at the end, as the system wants them
#else
    Result<FileId> open_handle(BytesView path, Mode mode, bool is_shared);
    HANDLE& handle(FileId file) {
        COORD_ASSERT(file != FileId{} && file.value <= handles_.size());
        return handles_[file.value - 1];
    }
    std::vector<HANDLE> handles_;      // file n's is at n - 1
#endif
};

Errc SystemFiles::write_zeros(FileId file, std::uint64_t size) {
    const Bytes zeros(files_piece_bytes, '\0');
    for (std::uint64_t at = 0; at < size; at += zeros.size()) {
        const std::uint64_t left = size - at;
        const BytesView piece(zeros.data(), static_cast<std::size_t>((std::min)(
                                                left, std::uint64_t{zeros.size()})));
        const Errc failed = write(file, at, piece);
        if (failed != Errc::ok) return failed;
    }
    return Errc::ok;
}

#ifndef _WIN32

static int descriptor(FileId file) {
    COORD_ASSERT(file != FileId{});
    return static_cast<int>(file.value) - 1;
}

// A signal may interrupt any call that can take long, before it has done anything. A sync is not
// among those that are done again: nobody knows what became of it.
int SystemFiles::open_descriptor(BytesView path, int flags) {
    int opened = -1;
    path_ = path;
    do {
        opened = ::open(path_.c_str(), flags | O_CLOEXEC, 0644);
    } while (opened < 0 && errno == EINTR);
    return opened;
}

Errc SystemFiles::error(const char* call) {
    const int code = errno;
    std::snprintf(text_, sizeof text_, "%s: %s (%d)", call, std::strerror(code), code);
    if (code == ENOSPC || code == EDQUOT) return Errc::storage_full;
    return code == ENOENT ? Errc::no_node : Errc::storage_failed;
}

Result<FileId> SystemFiles::open(BytesView path, Mode mode) {
    const int flags = mode == Mode::read    ? O_RDONLY
                      : mode == Mode::write ? O_RDWR
                                            : O_RDWR | O_CREAT | O_TRUNC;
    const int opened = open_descriptor(path, flags);
    if (opened < 0) return error("open");
    return FileId(static_cast<std::uint32_t>(opened) + 1);
}

void SystemFiles::close(FileId file) { ::close(descriptor(file)); }

Result<std::uint64_t> SystemFiles::size(FileId file) {
    struct stat found;
    if (::fstat(descriptor(file), &found) != 0) return error("fstat");
    return static_cast<std::uint64_t>(found.st_size);
}

Errc SystemFiles::read(FileId file, std::uint64_t offset, std::size_t size, Bytes& out) {
    const std::size_t start = out.size();
    out.resize(start + size);
    std::size_t done = 0;
    while (done < size) {
        const ssize_t got = ::pread(descriptor(file), &out[start + done], size - done,
                                    static_cast<off_t>(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return out.resize(start), error("read");
        if (got == 0) break;
        done += static_cast<std::size_t>(got);
    }
    out.resize(start + done);
    return Errc::ok;
}

Errc SystemFiles::write(FileId file, std::uint64_t offset, BytesView bytes) {
    while (!bytes.empty()) {
        const ssize_t put = ::pwrite(descriptor(file), bytes.data(), bytes.size(),
                                     static_cast<off_t>(offset));
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return error("write");
        offset += static_cast<std::uint64_t>(put);
        bytes.remove_prefix(static_cast<std::size_t>(put));
    }
    return Errc::ok;
}

Errc SystemFiles::allocate(FileId file, std::uint64_t size) {
#ifdef __linux__
    do {
        errno = ::posix_fallocate(descriptor(file), 0, static_cast<off_t>(size));
    } while (errno == EINTR);
    if (errno == 0) return Errc::ok;
    if (errno != EOPNOTSUPP && errno != EINVAL && errno != ENOSYS) return error("fallocate");
#endif
    return write_zeros(file, size);
}

Errc SystemFiles::sync(FileId file) {
#ifdef __APPLE__
    if (::fcntl(descriptor(file), F_FULLFSYNC) == 0) return Errc::ok;  // fsync does too little
    return ::fsync(descriptor(file)) == 0 ? Errc::ok : error("fsync");
#else
    return ::fdatasync(descriptor(file)) == 0 ? Errc::ok : error("fdatasync");
#endif
}

Errc SystemFiles::rename(BytesView from, BytesView to) {
    path_ = from, new_path_ = to;
    return ::rename(path_.c_str(), new_path_.c_str()) == 0 ? Errc::ok : error("rename");
}

Errc SystemFiles::remove(BytesView path) {
    path_ = path;
    return ::unlink(path_.c_str()) == 0 || errno == ENOENT ? Errc::ok : error("unlink");
}

Errc SystemFiles::make_directory(BytesView path) {
    return ::mkdir(Bytes(path).c_str(), 0755) == 0 || errno == EEXIST ? Errc::ok : error("mkdir");
}

// A file system that cannot sync a directory says EINVAL; it keeps its names in its own way.
Errc SystemFiles::sync_directory(BytesView path) {
    const int opened = open_descriptor(path, O_RDONLY | O_DIRECTORY);
    if (opened < 0) return error("open");
    const Errc synced = ::fsync(opened) == 0 || errno == EINVAL ? Errc::ok : error("fsync");
    ::close(opened);
    return synced;
}

Errc SystemFiles::list(BytesView directory, std::vector<Bytes>& names) {
    DIR* opened = nullptr;
    do {
        opened = ::opendir(Bytes(directory).c_str());
    } while (opened == nullptr && errno == EINTR);
    if (opened == nullptr) return error("opendir");
    errno = 0;
    while (const dirent* const entry = ::readdir(opened)) names.emplace_back(entry->d_name);
    const Errc read = errno == 0 ? Errc::ok : error("readdir");
    ::closedir(opened);
    return read;
}

Result<FileId> SystemFiles::lock(BytesView path) {
    const int opened = open_descriptor(path, O_RDWR | O_CREAT);
    if (opened < 0) return error("open");
    if (::flock(opened, LOCK_EX | LOCK_NB) == 0) {
        return FileId(static_cast<std::uint32_t>(opened) + 1);
    }
    const Errc failed = errno == EWOULDBLOCK ? Errc::storage_locked : Errc::storage_failed;
    error("flock");
    ::close(opened);
    return failed;
}

#else  // _WIN32

static std::wstring wide(BytesView path) {
    const int size = static_cast<int>(path.size());
    const int needed = ::MultiByteToWideChar(CP_UTF8, 0, path.data(), size, nullptr, 0);
    std::wstring out(static_cast<std::size_t>(needed), L'\0');
    ::MultiByteToWideChar(CP_UTF8, 0, path.data(), size, &out[0], needed);
    return out;
}

Errc SystemFiles::error(const char* call) {
    const DWORD code = ::GetLastError();
    std::snprintf(text_, sizeof text_, "%s: system error %lu", call, code);
    if (code == ERROR_DISK_FULL || code == ERROR_HANDLE_DISK_FULL) return Errc::storage_full;
    if (code == ERROR_SHARING_VIOLATION) return Errc::storage_locked;
    const bool is_absent = code == ERROR_FILE_NOT_FOUND || code == ERROR_PATH_NOT_FOUND;
    return is_absent ? Errc::no_node : Errc::storage_failed;
}

Result<FileId> SystemFiles::open_handle(BytesView path, Mode mode, bool is_shared) {
    const DWORD access = mode == Mode::read ? GENERIC_READ : GENERIC_READ | GENERIC_WRITE;
    const DWORD sharing = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
    const HANDLE opened = ::CreateFileW(
        wide(path).c_str(), access, is_shared ? sharing : 0, nullptr,
        mode == Mode::create ? CREATE_ALWAYS : OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr);
    if (opened == INVALID_HANDLE_VALUE) return error("CreateFile");
    const auto free = std::find(handles_.begin(), handles_.end(), INVALID_HANDLE_VALUE);
    const std::size_t index = static_cast<std::size_t>(free - handles_.begin());
    if (free == handles_.end()) handles_.push_back(opened);
    handles_[index] = opened;
    return FileId(static_cast<std::uint32_t>(index) + 1);
}

Result<FileId> SystemFiles::open(BytesView path, Mode mode) {
    return open_handle(path, mode, true);
}

Result<FileId> SystemFiles::lock(BytesView path) { return open_handle(path, Mode::create, false); }

void SystemFiles::close(FileId file) {
    ::CloseHandle(handle(file));
    handle(file) = INVALID_HANDLE_VALUE;
}

Result<std::uint64_t> SystemFiles::size(FileId file) {
    LARGE_INTEGER found;
    if (!::GetFileSizeEx(handle(file), &found)) return error("GetFileSizeEx");
    return static_cast<std::uint64_t>(found.QuadPart);
}

static OVERLAPPED at_offset(std::uint64_t offset) {
    OVERLAPPED at = {};
    at.Offset = static_cast<DWORD>(offset), at.OffsetHigh = static_cast<DWORD>(offset >> 32);
    return at;
}

constexpr std::size_t windows_piece_bytes = 1 << 30;  // sizes are of 32 bits there

Errc SystemFiles::read(FileId file, std::uint64_t offset, std::size_t size, Bytes& out) {
    const std::size_t start = out.size();
    out.resize(start + size);
    std::size_t done = 0;
    while (done < size) {
        OVERLAPPED at = at_offset(offset + done);
        DWORD got = 0;
        const DWORD asked = static_cast<DWORD>((std::min)(size - done, windows_piece_bytes));
        if (!::ReadFile(handle(file), &out[start + done], asked, &got, &at)) {
            if (::GetLastError() == ERROR_HANDLE_EOF) break;
            return out.resize(start), error("ReadFile");
        }
        if (got == 0) break;
        done += got;
    }
    out.resize(start + done);
    return Errc::ok;
}

Errc SystemFiles::write(FileId file, std::uint64_t offset, BytesView bytes) {
    while (!bytes.empty()) {
        OVERLAPPED at = at_offset(offset);
        DWORD put = 0;
        const DWORD given = static_cast<DWORD>((std::min)(bytes.size(), windows_piece_bytes));
        if (!::WriteFile(handle(file), bytes.data(), given, &put, &at)) {
            return error("WriteFile");
        }
        offset += put;
        bytes.remove_prefix(put);
    }
    return Errc::ok;
}

Errc SystemFiles::allocate(FileId file, std::uint64_t size) { return write_zeros(file, size); }

Errc SystemFiles::sync(FileId file) {
    return ::FlushFileBuffers(handle(file)) ? Errc::ok : error("FlushFileBuffers");
}

Errc SystemFiles::rename(BytesView from, BytesView to) {
    const DWORD flags = MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH;
    return ::MoveFileExW(wide(from).c_str(), wide(to).c_str(), flags) ? Errc::ok
                                                                      : error("MoveFileEx");
}

Errc SystemFiles::remove(BytesView path) {
    if (::DeleteFileW(wide(path).c_str())) return Errc::ok;
    return ::GetLastError() == ERROR_FILE_NOT_FOUND ? Errc::ok : error("DeleteFile");
}

Errc SystemFiles::make_directory(BytesView path) {
    if (::CreateDirectoryW(wide(path).c_str(), nullptr)) return Errc::ok;
    return ::GetLastError() == ERROR_ALREADY_EXISTS ? Errc::ok : error("CreateDirectory");
}

// Names are in the journal of the file system, in their order, and renames are written through.
Errc SystemFiles::sync_directory(BytesView) { return Errc::ok; }

Errc SystemFiles::list(BytesView directory, std::vector<Bytes>& names) {
    WIN32_FIND_DATAW entry;
    const HANDLE search = ::FindFirstFileW(wide(Bytes(directory) + "/*").c_str(), &entry);
    if (search == INVALID_HANDLE_VALUE) return error("FindFirstFile");
    do {
        Bytes name;
        for (const wchar_t* c = entry.cFileName; *c != 0; c++) {
            name.push_back(*c < 128 ? static_cast<char>(*c) : '?');  // none of ours
        }
        names.push_back(name);
    } while (::FindNextFileW(search, &entry));
    ::FindClose(search);
    return Errc::ok;
}

#endif  // _WIN32

}  // namespace detail

detail::Owned<Files> system_files() { return detail::Owned<Files>(new detail::SystemFiles()); }

#endif  // COORD_NO_FILES

#ifndef COORD_NO_THREADS

// -------------------------------------------------------------------------------------------------
// On a thread

namespace detail {
constexpr std::size_t background_bytes_max = 16 * 1024 * 1024;  // queued, beside what is made
constexpr std::size_t background_piece_bytes = 1024 * 1024;     // of a snapshot, queued at once
}  // namespace detail

// What the caller and the thread share.
struct BackgroundStorage::Work {
    enum class Kind : std::uint8_t { record, begin, piece, end };
    struct Change {
        Kind kind = Kind::record;
        bool replaces = false;
        std::size_t size = 0;          // of its bytes
        std::uint64_t begun = 0;       // the snapshot's number
        Sequence first_needed = 0;
    };
    struct Changes {
        Bytes bytes;                   // of all of them
        std::vector<Change> list;
        std::size_t next = 0;          // what is before it was made
        std::size_t next_at = 0;       // its bytes
        bool is_done() const { return next == list.size(); }
        void clear() { bytes.clear(), list.clear(), next = 0, next_at = 0; }
        std::size_t cost() const { return bytes.size() + list.size() * sizeof(Change); }
    };
    struct Read {
        Sequence snapshot = 0;
        std::uint64_t version = 0;     // of what it reads
        std::uint64_t offset = 0;
        std::size_t size = 0;
        bool is_there = false;         // somebody asks, or here is what was asked
        bool is_same(const Read& other) const {
            return is_there && snapshot == other.snapshot && version == other.version &&
                   offset == other.offset && size == other.size;
        }
    };

    Work(Storage& storage, const Callback<void()>& progress);
    ~Work();
    Errc push(Change change, BytesView bytes);
    Errc end_now(std::unique_lock<std::mutex>& lock, const Change& change);
    bool is_begun_full() const { return begun > 0 && begun_full == begun; }
    Errc read(const Read& asked, Bytes& out);
    Errc flush(Time now);
    void run();
    void want();
    bool fits(std::size_t size) const;
    std::uint64_t version(Sequence snapshot) const { return snapshot == 0 ? changed : ended; }
    void take();
    Errc make_all();
    Errc make(const Change& change, BytesView bytes);
    bool publish(Errc error);

    Storage& inner;                    // S11
    const Callback<void()>& on_progress;
    const std::uint64_t id;
    // Both threads, under the mutex.
    mutable std::mutex mutex;
    std::condition_variable wake;      // the thread: something is wanted
    std::condition_variable moved;     // the caller: the queue was taken, or will not be
    Changes queued;
    Read asked_read;
    Read answer;
    Bytes answer_bytes;
    Sequence appended = 0;             // accepted
    Sequence asked = 0;                // up to here a flush was asked for
    Time asked_at{INT64_MIN / 4};
    Sequence durable = 0;
    std::uint64_t begun = 0;           // snapshots, and the newest of them that found no space
    std::uint64_t begun_full = 0;
    std::uint64_t ended = 0;
    std::uint64_t changed = 0;         // changes of snapshots: accepted, and made
    std::uint64_t changed_made = 0;
    bool is_wanted = false;
    bool is_flush_wanted = false;
    bool is_busy = false;
    bool is_stopping = false;
    bool is_failed = false;
    bool is_full = false;              // the next change waits for space
    bool has_room = true;
    // The thread while it is busy.
    Changes changes;
    Read reading;
    Bytes reading_bytes;
    Sequence goal = 0;                 // what of them a flush was asked for
    Time time{INT64_MIN / 4};          // when
    bool is_flush_due = false;
    Sequence made = 0;                 // the newest sequence that inner has
    std::uint64_t begun_made = 0;
    std::uint64_t snapshots_made = 0;  // changes of snapshots
    bool is_given_up = false;          // the snapshot that was begun: no space
    std::thread thread;                // the last member: it runs once all others are there
};

BackgroundStorage::Work::Work(Storage& storage, const Callback<void()>& progress)
    : inner(storage), on_progress(progress), id(inner.id()), appended(inner.appended()),
      asked(appended), durable(inner.durable()), has_room(inner.has_room()), goal(appended),
      made(appended),
      thread([this] { run(); }) {}

BackgroundStorage::Work::~Work() {
    {
        const std::lock_guard<std::mutex> lock(mutex);
        is_stopping = true;
    }
    wake.notify_one();
    thread.join();
}

// -- The caller

void BackgroundStorage::Work::want() {
    is_wanted = !is_failed;
    wake.notify_one();
}

bool BackgroundStorage::Work::fits(std::size_t size) const {
    const std::size_t cost = queued.cost() + sizeof(Change) + size;
    return queued.list.empty() || cost <= detail::background_bytes_max;
}

// RETURNS storage_full and storage_failed, and then nothing has changed.
Errc BackgroundStorage::Work::push(Change change, BytesView bytes) {
    std::unique_lock<std::mutex> lock(mutex);
    if (!fits(bytes.size()) && !is_full) {
        want();
        moved.wait(lock, [&] { return is_failed || is_full || fits(bytes.size()); });
    }
    if (is_failed) return Errc::storage_failed;
    const bool is_record = change.kind == Kind::record, is_end = change.kind == Kind::end;
    if (change.kind == Kind::begin) begun += 1;
    if (is_full) want();
    if (is_full && !is_record) begun_full = begun;
    if (is_full || (!is_record && is_begun_full())) return Errc::storage_full;
    if (is_end && !has_room) return end_now(lock, change);
    change.size = bytes.size(), change.begun = begun;
    queued.bytes.append(bytes);
    queued.list.push_back(change);
    if (is_record || is_end) appended += 1;
    if (is_end) ended += 1;
    if (is_record) return Errc::ok;
    changed += 1;
    want();  // so that a large snapshot does not pile up
    return Errc::ok;
}

// Where an end could be refused it must be known at once whether it has got its sequence.
Errc BackgroundStorage::Work::end_now(std::unique_lock<std::mutex>& lock, const Change& change) {
    want();
    moved.wait(lock, [this] { return is_failed || is_full || (!is_busy && !is_wanted); });
    if (is_full) begun_full = begun;
    if (is_failed || is_full || is_begun_full()) {
        return is_failed ? Errc::storage_failed : Errc::storage_full;
    }
    COORD_ASSERT(queued.list.empty() && changes.is_done() && !is_given_up);
    const Errc error = inner.end_snapshot(change.first_needed, change.replaces);  // S11
    is_failed = error != Errc::ok && error != Errc::storage_full;
    if (error == Errc::storage_full) begun_full = begun, is_given_up = true;
    if (error != Errc::ok) return is_failed ? Errc::storage_failed : error;
    appended += 1, made += 1, ended += 1;
    changed += 1, changed_made += 1, snapshots_made += 1;
    return Errc::ok;
}

Errc BackgroundStorage::Work::flush(Time now) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (is_failed) return Errc::storage_failed;
    asked = appended, asked_at = now, is_flush_wanted = true;
    want();
    return Errc::ok;
}

Errc BackgroundStorage::Work::read(const Read& call, Bytes& out) {
    const std::lock_guard<std::mutex> lock(mutex);
    Read exact = call;
    exact.version = version(call.snapshot), exact.is_there = true;
    if (is_failed) return Errc::storage_failed;
    if (call.snapshot == 0 && is_begun_full()) return Errc::storage_full;
    if (answer.is_same(exact)) {
        answer.is_there = false;
        out.append(answer_bytes);
        return Errc::ok;
    }
    if (is_busy || is_wanted || changed != changed_made) {
        if (is_full && call.snapshot == 0) return Errc::storage_full;
        asked_read = exact;
        want();
        return Errc::throttled_op;
    }
    const Errc error = inner.read_snapshot(call.snapshot, call.offset, call.size, out);  // S11
    if (error == Errc::ok) return error;
    if (error == Errc::storage_full && call.snapshot == 0) {
        begun_full = begun, is_given_up = true;
        return error;
    }
    is_failed = true;
    return Errc::storage_failed;
}

// -- The thread

void BackgroundStorage::Work::run() {
    std::unique_lock<std::mutex> lock(mutex);
    for (;;) {
        wake.wait(lock, [this] { return is_wanted || is_stopping; });
        if (!is_wanted) return;
        take();
        moved.notify_one();
        lock.unlock();
        const Errc error = make_all();
        lock.lock();
        const bool is_progress = publish(error);
        moved.notify_one();
        lock.unlock();
        if (is_progress && on_progress) on_progress();
        lock.lock();
    }
}

void BackgroundStorage::Work::take() {
    COORD_ASSERT(is_wanted && !is_busy && !is_failed);
    is_wanted = false, is_busy = true;
    if (changes.is_done()) {
        changes.clear();
        std::swap(changes, queued);
    } else {
        changes.bytes.append(queued.bytes);
        changes.list.insert(changes.list.end(), queued.list.begin(), queued.list.end());
        queued.clear();
    }
    goal = asked, time = asked_at;
    is_flush_due = is_flush_wanted || asked > durable;  // what waited for space was asked before
    is_flush_wanted = false;
    reading = asked_read;
    reading.is_there = reading.is_there && reading.version == version(reading.snapshot);
    asked_read.is_there = false;
}

// RETURNS storage_full where the next change must wait, storage_failed where all is over.
Errc BackgroundStorage::Work::make_all() {
    Errc error = Errc::ok;
    while (error == Errc::ok && !changes.is_done()) {
        const Change& change = changes.list[changes.next];
        error = make(change, BytesView(changes.bytes).substr(changes.next_at, change.size));
        if (error != Errc::ok) break;
        changes.next += 1, changes.next_at += change.size;
        if (change.kind == Kind::record || change.kind == Kind::end) made += 1;
        if (change.kind != Kind::record) snapshots_made += 1;
    }
    if (error != Errc::ok && error != Errc::storage_full) return Errc::storage_failed;
    if (inner.appended() != made) return Errc::storage_failed;
    if (is_flush_due) inner.set_time(time);
    if (is_flush_due && inner.flush() != Errc::ok) return Errc::storage_failed;
    reading.is_there = reading.is_there && error == Errc::ok &&
                       !(reading.snapshot == 0 && is_given_up);
    if (!reading.is_there) return error;
    reading_bytes.clear();
    const Errc read =
        inner.read_snapshot(reading.snapshot, reading.offset, reading.size, reading_bytes);
    if (read == Errc::ok) return error;
    reading.is_there = false;
    is_given_up = is_given_up || reading.snapshot == 0;
    return read == Errc::storage_full && reading.snapshot == 0 ? error : Errc::storage_failed;
}

Errc BackgroundStorage::Work::make(const Change& change, BytesView bytes) {
    Errc error = Errc::ok;
    switch (change.kind) {
        case Kind::record: return inner.append(bytes);
        case Kind::begin:
            begun_made = change.begun, is_given_up = false;
            error = inner.begin_snapshot();
            break;
        case Kind::piece:
            if (!is_given_up) error = inner.write_snapshot(bytes);
            break;
        case Kind::end:  // its sequence was given away
            if (is_given_up) return Errc::storage_failed;
            error = inner.end_snapshot(change.first_needed, change.replaces);
            return error == Errc::ok ? error : Errc::storage_failed;
    }
    is_given_up = is_given_up || error == Errc::storage_full;
    return error == Errc::storage_full ? Errc::ok : error;
}

// RETURNS whether the caller would see something that it did not before.
bool BackgroundStorage::Work::publish(Errc error) {
    const Sequence reached = (std::min)(inner.durable(), goal);  // S2
    is_busy = false;
    is_failed = error == Errc::storage_failed || inner.health() != Errc::ok;
    const bool is_room = error == Errc::ok && inner.has_room();
    const bool is_read = reading.is_there && !is_failed;
    const bool is_progress = reached > durable || is_failed || is_room != has_room || is_read ||
                             (is_given_up && begun_full < begun_made);
    is_full = error == Errc::storage_full, has_room = is_room;
    changed_made = snapshots_made;
    if (is_given_up) begun_full = (std::max)(begun_full, begun_made);
    if (!is_failed) durable = (std::max)(durable, reached);
    if (is_failed) is_wanted = false, queued.clear(), changes.clear();
    if (is_read) answer = reading, std::swap(answer_bytes, reading_bytes);
    reading.is_there = false;
    return is_progress;
}

// -- The face

BackgroundStorage::BackgroundStorage(Storage& inner, Callback<void()> on_progress)
    : inner_(inner), on_progress_(std::move(on_progress)) {}

BackgroundStorage::~BackgroundStorage() = default;

Errc BackgroundStorage::open(RecoverySink& sink, const StorageOwner& owner) {
    work_ = detail::Owned<Work>();
    const Errc error = inner_.open(sink, owner);
    if (error == Errc::ok) work_ = detail::Owned<Work>(new Work(inner_, on_progress_));
    return error;
}

Errc BackgroundStorage::start_over(std::uint64_t entropy) {
    work_ = detail::Owned<Work>();
    const Errc error = inner_.start_over(entropy);
    if (error == Errc::ok) work_ = detail::Owned<Work>(new Work(inner_, on_progress_));
    return error;
}

Errc BackgroundStorage::append(BytesView record) {
    return work_ ? work_->push({}, record) : Errc::storage_failed;
}

Errc BackgroundStorage::begin_snapshot() {
    if (!work_) return Errc::storage_failed;
    Work::Change change;
    change.kind = Work::Kind::begin;
    return work_->push(change, {});
}

Errc BackgroundStorage::write_snapshot(BytesView piece) {
    if (!work_) return Errc::storage_failed;
    Work::Change change;
    change.kind = Work::Kind::piece;
    Errc error = Errc::ok;
    while (!piece.empty() && error == Errc::ok) {
        const BytesView part = piece.substr(0, detail::background_piece_bytes);
        error = work_->push(change, part);
        piece.remove_prefix(part.size());
    }
    return error;
}

Errc BackgroundStorage::end_snapshot(Sequence first_needed, bool replaces) {
    if (!work_) return Errc::storage_failed;
    COORD_ASSERT(first_needed <= appended() + 1);
    Work::Change change;
    change.kind = Work::Kind::end;
    change.first_needed = first_needed, change.replaces = replaces;
    return work_->push(change, {});
}

Errc BackgroundStorage::read_snapshot(Sequence snapshot, std::uint64_t offset, std::size_t size,
                                      Bytes& out) {
    if (!work_) return inner_.read_snapshot(snapshot, offset, size, out);
    Work::Read call;
    call.snapshot = snapshot, call.offset = offset, call.size = size;
    return work_->read(call, out);
}

Errc BackgroundStorage::flush() { return work_ ? work_->flush(time_) : Errc::storage_failed; }

Sequence BackgroundStorage::appended() const {
    if (!work_) return inner_.appended();
    const std::lock_guard<std::mutex> lock(work_->mutex);
    return work_->appended;
}

Sequence BackgroundStorage::durable() const {
    if (!work_) return inner_.durable();
    const std::lock_guard<std::mutex> lock(work_->mutex);
    return work_->durable;
}

Errc BackgroundStorage::health() const {
    if (!work_) return inner_.health();
    const std::lock_guard<std::mutex> lock(work_->mutex);
    return work_->is_failed ? Errc::storage_failed : Errc::ok;
}

bool BackgroundStorage::has_room() const {
    if (!work_) return inner_.has_room();
    const std::lock_guard<std::mutex> lock(work_->mutex);
    return work_->has_room;
}

std::uint64_t BackgroundStorage::id() const { return work_ ? work_->id : inner_.id(); }

#endif  // COORD_NO_THREADS

// =================================================================================================
// Part Two, chapter 7: Log
// =================================================================================================

namespace detail {

constexpr std::size_t record_header_bytes = 9;   // FORMAT: length, checksum, kind
constexpr std::size_t base_record_bytes = record_header_bytes + 25;  // FORMAT
constexpr std::size_t log_block_bytes = 65536;
constexpr std::size_t spare_blocks_max = 256;

// Opens a record at the end of out; close_record fills in length and checksum, and returns it.
inline std::size_t open_record(RecordKind kind, Bytes& out) {
    const std::size_t start = out.size();
    Writer writer(out);
    writer.u32(0), writer.u32(0);
    writer.u8(static_cast<std::uint8_t>(kind));
    return start;
}

inline std::uint32_t close_record(std::size_t start, Bytes& out) {
    const std::uint32_t crc = crc32c(BytesView(out).substr(start + 8));
    Writer writer(out);
    writer.patch_u32(start, static_cast<std::uint32_t>(out.size() - start));
    writer.patch_u32(start + 4, crc);
    return crc;
}

// Checks the frame of a record that is all of `record`, or of its first `length` bytes.
inline Errc open_frame(BytesView record, RecordKind& kind, BytesView& fields, BytesView& rest) {
    if (record.size() < record_header_bytes) return Errc::corrupt;
    const std::uint32_t length = load_big32(record.data());
    const std::uint32_t crc = load_big32(record.data() + 4);
    if (length < record_header_bytes || length > record.size()) return Errc::corrupt;
    if (crc32c(record.substr(8, length - 8)) != crc) return Errc::corrupt;
    kind = static_cast<RecordKind>(record[8]);
    fields = record.substr(record_header_bytes, length - record_header_bytes);
    rest = record.substr(length);
    return Errc::ok;
}

}  // namespace detail

void read_entry(BytesView record, Txn& txn) {
    COORD_ASSERT(record.size() >= entry_header_bytes);
    const char* const at = record.data() + detail::record_header_bytes;
    txn.zxid = Zxid{detail::load_big64(at)}, txn.previous = Zxid{detail::load_big64(at + 8)};
    txn.previous_crc = detail::load_big32(at + 16);
    txn.time_ms = static_cast<std::int64_t>(detail::load_big64(at + 20));
    txn.session = SessionId{detail::load_big64(at + 28)};
    txn.cxid = detail::load_big64(at + 36), txn.confirmed = detail::load_big64(at + 44);
    txn.op = static_cast<OpCode>(at[52]);
    static_assert(entry_header_bytes - detail::record_header_bytes == 53, "the format's offsets");
    txn.body = record.substr(entry_header_bytes);
}

namespace detail {

// Of a record whose frame is sound.
static bool is_entry(BytesView record, Txn& txn) {
    if (record.size() < entry_header_bytes) return false;
    read_entry(record, txn);
    return txn.zxid > txn.previous && txn.zxid.counter() > 0;
}

}  // namespace detail

Errc decode_entry(BytesView record, Txn& txn) {
    RecordKind kind{};
    BytesView fields, rest;
    if (detail::open_frame(record, kind, fields, rest) != Errc::ok) return Errc::corrupt;
    if (kind != RecordKind::entry || !rest.empty()) return Errc::corrupt;
    return detail::is_entry(record, txn) ? Errc::ok : Errc::corrupt;
}

namespace detail {

// Into room for all of it. RETURNS the checksum.
static std::uint32_t put_entry(const Txn& txn, char* place) {
    COORD_ASSERT(txn.zxid > txn.previous && txn.body.size() <= UINT32_MAX - entry_header_bytes);
    store_big32(place, static_cast<std::uint32_t>(entry_header_bytes + txn.body.size()));
    place[8] = static_cast<char>(RecordKind::entry);
    char* const at = place + record_header_bytes;
    store_big64(at, txn.zxid.value), store_big64(at + 8, txn.previous.value);
    store_big32(at + 16, txn.previous_crc);
    store_big64(at + 20, static_cast<std::uint64_t>(txn.time_ms));
    store_big64(at + 28, txn.session.value);
    store_big64(at + 36, txn.cxid), store_big64(at + 44, txn.confirmed);
    at[52] = static_cast<char>(txn.op);
    static_assert(entry_header_bytes - record_header_bytes == 53, "the format's offsets");
    if (!txn.body.empty()) std::memcpy(at + 53, txn.body.data(), txn.body.size());
    const std::size_t covered = entry_header_bytes - 8 + txn.body.size();
    const std::uint32_t crc = crc32c(BytesView(place + 8, covered));
    store_big32(place + 4, crc);
    return crc;
}

}  // namespace detail

std::uint32_t encode_entry(const Txn& txn, Bytes& out) {
    const std::size_t start = out.size();
    out.resize(start + entry_header_bytes + txn.body.size());
    return detail::put_entry(txn, &out[start]);
}

// -- Recovery ------------------------------------------------------------------------------------

Errc Log::open(const StorageOwner& owner) {
    const Errc error = storage_.open(*this, owner);
    if (error != Errc::ok) {
        reason_ = "the storage did not open";
        return error;
    }
    if (*reason_ == 0 && base_.zxid > Zxid{} && snapshot_sequence_ == 0) {
        damage("the log starts in the middle and there is no snapshot");
    }
    if (*reason_ == 0 && snapshot_sequence_ > 0 && !contains(snapshot_position_.zxid)) {
        damage("the snapshot is older than the log");
    }
    // L3, at the end: the promise before the oldest record may stand in the snapshot alone.
    if (*reason_ == 0 && epochs_.current > epochs_.accepted) damage("an epoch record is wrong");
    if (*reason_ != 0) return Errc::corrupt;
    durable_last_ = last().zxid;
    durable_epochs_ = epochs_;
    return Errc::ok;
}

Errc Log::start_over(std::uint64_t entropy) {
    const Errc error = storage_.start_over(entropy);
    if (error != Errc::ok) return error;
    drop_through(entries_.size());
    base_ = snapshot_position_ = begun_position_ = LogPosition{};
    epochs_ = durable_epochs_ = begun_epochs_ = Epochs{};
    durable_last_ = needless_ = Zxid{};
    marks_.clear(), admits_.clear();
    snapshot_sequence_ = 0, snapshot_bytes_ = begun_bytes_ = 0;
    anchored_ = dirty_ = false;
    reason_ = "";
    return Errc::ok;
}

void Log::damage(const char* reason) {
    if (*reason_ == 0) reason_ = reason;
}

void Log::on_record(Sequence sequence, BytesView record) {
    RecordKind kind{};
    BytesView fields, rest;
    if (*reason_ != 0) return;
    if (detail::open_frame(record, kind, fields, rest) != Errc::ok || !rest.empty()) {
        return damage("a record in the log is damaged");
    }
    Reader in(fields);
    switch (kind) {
        case RecordKind::entry: return recover_entry(sequence, record);  // its frame is sound
        case RecordKind::truncate: return recover_truncate(in.zxid());
        case RecordKind::accepted:
        case RecordKind::current: return recover_epochs(kind, in);
        case RecordKind::base: break;
    }
    damage("a record in the log is of an unknown kind");
}

void Log::recover_entry(Sequence sequence, BytesView record) {
    Txn txn;
    if (!detail::is_entry(record, txn)) return damage("an entry in the log is damaged");
    if (!anchored_) base_ = LogPosition{txn.previous, txn.previous_crc};
    anchored_ = true;
    if (txn.previous != last().zxid || txn.previous_crc != last().crc) {
        return damage("an entry is missing in the log");  // L1
    }
    std::memcpy(reserve(record.size()), record.data(), record.size());
    push_entry(record.size(), txn, detail::load_big32(record.data() + 4), sequence);
}

void Log::recover_truncate(Zxid zxid) {
    if (!contains(zxid)) return damage("the log was cut where it has nothing");
    cut_after(zxid);
}

void Log::recover_epochs(RecordKind kind, Reader& in) {
    const std::uint32_t epoch = in.u32();
    if (kind == RecordKind::accepted) {
        epochs_.accepted = epoch, epochs_.accepted_from = PeerId{in.u32()};
    } else {
        epochs_.current = epoch;
    }
    if (!in.done()) damage("an epoch record is wrong");
}

void Log::on_snapshot(Sequence sequence, BytesView head, std::uint64_t size) {
    RecordKind kind{};
    BytesView fields, rest;
    const Errc error = detail::open_frame(head, kind, fields, rest);
    if (error != Errc::ok || kind != RecordKind::base) return damage("the snapshot is damaged");
    Reader in(fields);
    LogPosition position;
    position.zxid = in.zxid(), position.crc = in.u32();
    Epochs epochs;
    epochs.accepted = in.u32(), epochs.accepted_from = PeerId{in.u32()}, epochs.current = in.u32();
    const bool installed = in.u8() == 1;
    if (!in.done() || size < detail::base_record_bytes) return damage("the snapshot is damaged");
    if (installed) reason_ = "";  // it replaces what came before, whose start may be gone already
    if (*reason_ != 0) return;
    const bool follows = contains(position.zxid) && crc_at(position.zxid) == position.crc;
    if (installed || (!anchored_ && entries_.empty())) {
        replace_with(position);
    } else if (!follows) {
        return damage("the snapshot is not of this log");
    }
    anchored_ = true;
    if (epochs.accepted > epochs_.accepted) {  // it knows those of the time when it was begun
        epochs_.accepted = epochs.accepted, epochs_.accepted_from = epochs.accepted_from;
    }
    epochs_.current = (std::max)(epochs_.current, epochs.current);
    snapshot_position_ = position, snapshot_sequence_ = sequence;
    snapshot_bytes_ = size - detail::base_record_bytes;
}

// -- Reading -------------------------------------------------------------------------------------

Errc Log::read_snapshot(std::uint64_t offset, std::size_t size, Bytes& out) const {
    COORD_ASSERT(snapshot_sequence_ > 0);
    const std::uint64_t from = offset + detail::base_record_bytes;
    return storage_.read_snapshot(snapshot_sequence_, from, size, out);
}

Errc Log::read_begun(std::uint64_t offset, std::size_t size, Bytes& out) const {
    return storage_.read_snapshot(0, offset + detail::base_record_bytes, size, out);
}

LogPosition Log::last() const {
    if (entries_.empty()) return base_;
    const Entry& entry = entries_.back();
    return LogPosition{entry.zxid, entry.crc};
}

std::size_t Log::find(Zxid zxid) const {
    std::size_t low = 0, high = entries_.size();
    const Zxid newest_here = last().zxid;
    if (high == 0 || zxid >= newest_here) return high;
    // Within an epoch the numbers have no gaps, so that the newest place is mostly told by them.
    const std::uint64_t behind = newest_here.value - zxid.value;
    if (behind < high && entries_[high - 1 - static_cast<std::size_t>(behind)].zxid == zxid) {
        return high - static_cast<std::size_t>(behind);
    }
    while (low < high) {
        const std::size_t middle = low + (high - low) / 2;
        if (entries_[middle].zxid <= zxid) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

bool Log::contains(Zxid zxid) const {
    if (zxid == base_.zxid) return true;
    const std::size_t count = find(zxid);
    return count > 0 && entries_[count - 1].zxid == zxid;
}

LogPosition Log::position_at_or_before(Zxid zxid) const {
    COORD_ASSERT(zxid >= base_.zxid);
    const std::size_t count = find(zxid);
    if (count == 0) return base_;
    return LogPosition{entries_[count - 1].zxid, entries_[count - 1].crc};
}

std::uint32_t Log::crc_at(Zxid zxid) const {
    COORD_ASSERT(contains(zxid));
    return position_at_or_before(zxid).crc;
}

BytesView Log::bytes_of(const Entry& entry) const {
    COORD_ASSERT(entry.block >= first_block_);
    const Block& block = blocks_[entry.block - first_block_];
    return BytesView(block.bytes.get() + entry.offset, entry.length);
}

BytesView Log::entry_after(Zxid zxid) const {
    const std::size_t place = find(zxid);
    COORD_ASSERT(zxid >= base_.zxid && place < entries_.size());
    return bytes_of(entries_[place]);
}

BytesView Log::entries_after(Zxid zxid, std::size_t bytes_max, Zxid& last_sent,
                             Zxid end) const {
    COORD_ASSERT(zxid >= base_.zxid);
    const std::size_t start = find(zxid);
    std::size_t stop = find(end);
    if (start >= stop) return {};
    const Entry& first = entries_[start];
    const auto bytes_to = [&first](const Entry& last) {
        return std::size_t{last.offset} + last.length - first.offset;
    };
    std::size_t next = start + 1;  // behind the last that has room
    while (next < stop) {
        const std::size_t middle = next + (stop - next) / 2;
        const Entry& entry = entries_[middle];
        if (entry.block == first.block && bytes_to(entry) <= bytes_max) {
            next = middle + 1;
        } else {
            stop = middle;
        }
    }
    const Entry& last = entries_[next - 1];
    COORD_ASSERT(last.block == first.block && last.offset >= first.offset);
    last_sent = last.zxid;
    const Block& block = blocks_[first.block - first_block_];
    return BytesView(block.bytes.get() + first.offset, bytes_to(last));
}

BytesView Log::admit_at(Zxid zxid) const {
    COORD_ASSERT(contains(zxid) && zxid > base_.zxid);
    Txn txn;
    const Errc decoded = decode_entry(bytes_of(entries_[find(zxid) - 1]), txn);
    COORD_ASSERT(decoded == Errc::ok && txn.op == OpCode::admit);
    return txn.body;
}

VoterTable Log::voters_at_end(const Machine& applied) const {
    VoterTable table = applied.voters();
    for (const Zxid zxid : admits_) {
        if (zxid > applied.applied()) (void)table.apply(admit_at(zxid));
    }
    return table;
}

// -- Changing ------------------------------------------------------------------------------------

Log::Block Log::make_block(std::size_t size) {
    Block block;
    block.size = size;
    block.bytes = detail::Owned<char[]>(new char[size]);
    return block;
}

char* Log::reserve(std::size_t size) {
    if (blocks_.empty() || blocks_.back().used + size > blocks_.back().size) {
        Block block;
        if (!spare_blocks_.empty() && size <= detail::log_block_bytes) {
            block = std::move(spare_blocks_.back());
            spare_blocks_.pop_back();
        } else {
            block = make_block((std::max)(size, detail::log_block_bytes));
        }
        block.used = 0;
        blocks_.push() = std::move(block);
    }
    const Block& block = blocks_.back();
    return block.bytes.get() + block.used;
}

// Of a record that is where reserve said: it has its room from here on.
void Log::push_entry(std::size_t length, const Txn& txn, std::uint32_t crc, Sequence sequence) {
    const LogPosition before = last();
    COORD_ASSERT(txn.zxid > before.zxid);
    COORD_ASSERT(txn.previous == before.zxid && txn.previous_crc == before.crc);  // L1
    Block& block = blocks_.back();
    COORD_ASSERT(length <= block.size - block.used);
    Entry& entry = entries_.push();
    entry.zxid = txn.zxid, entry.crc = crc;
    entry.length = static_cast<std::uint32_t>(length);
    entry.offset = static_cast<std::uint32_t>(block.used);
    entry.block = first_block_ + static_cast<std::uint32_t>(blocks_.size() - 1);
    entry.sequence = sequence;
    block.used += length;
    if (txn.op == OpCode::admit) admits_.push_back(txn.zxid);
}

Errc Log::append(BytesView record, const Txn& txn) {
    const Errc error = storage_.append(record);
    if (error != Errc::ok) return error;
    std::memcpy(reserve(record.size()), record.data(), record.size());
    push_entry(record.size(), txn, detail::load_big32(record.data() + 4), storage_.appended());
    anchored_ = true, dirty_ = true;
    return Errc::ok;
}

// Encoded where it stays: the storage gets it from there.
Errc Log::append(const Txn& txn) {
    const std::size_t length = entry_header_bytes + txn.body.size();
    char* const place = reserve(length);
    const std::uint32_t crc = detail::put_entry(txn, place);
    const Errc error = storage_.append(BytesView(place, length));
    if (error != Errc::ok) {
        if (blocks_.back().used == 0) blocks_.pop_back();  // or each larger one leaves another
        return error;
    }
    push_entry(length, txn, crc, storage_.appended());
    anchored_ = true, dirty_ = true;
    return Errc::ok;
}

void Log::cut_after(Zxid zxid) {
    const std::size_t kept = find(zxid);
    while (entries_.size() > kept) {
        const Entry& entry = entries_.back();
        while (entry.block < first_block_ + blocks_.size() - 1) blocks_.pop_back();
        blocks_.back().used = entry.offset;
        entries_.pop_back();
    }
    while (!admits_.empty() && admits_.back() > zxid) admits_.pop_back();
    for (std::size_t i = 0; i < marks_.size(); i++) {
        marks_[i].last = (std::min)(marks_[i].last, zxid);  // L2
    }
    durable_last_ = (std::min)(durable_last_, zxid);
    COORD_ASSERT(last().zxid == zxid);
}

Errc Log::truncate(Zxid zxid) {
    COORD_ASSERT(contains(zxid));
    if (zxid == last().zxid) return Errc::ok;
    COORD_ASSERT(zxid >= snapshot_position_.zxid);  // L4
    Bytes fields;
    Writer(fields).zxid(zxid);
    const Errc error = write(RecordKind::truncate, fields);
    if (error == Errc::ok) cut_after(zxid);
    return error;
}

Errc Log::write(RecordKind kind, BytesView fields) {
    scratch_.clear();
    const std::size_t start = detail::open_record(kind, scratch_);
    scratch_.append(fields);
    detail::close_record(start, scratch_);
    const Errc error = storage_.append(scratch_);
    dirty_ = dirty_ || error != Errc::storage_full;
    return error;
}

Errc Log::write_epochs(RecordKind kind, const Epochs& epochs) {
    Bytes fields;
    Writer writer(fields);
    writer.u32(kind == RecordKind::current ? epochs.current : epochs.accepted);
    if (kind == RecordKind::accepted) writer.u32(epochs.accepted_from.value);
    const Errc error = write(kind, fields);
    if (error == Errc::ok) epochs_ = epochs;
    return error;
}

Errc Log::accept_epoch(std::uint32_t epoch, PeerId leader) {
    COORD_ASSERT(epoch > epochs_.accepted);  // L3
    return write_epochs(RecordKind::accepted, Epochs{epoch, leader, epochs_.current});
}

Errc Log::set_current_epoch(std::uint32_t epoch) {
    COORD_ASSERT(epoch > epochs_.current && epoch <= epochs_.accepted);  // L3
    return write_epochs(RecordKind::current,
                        Epochs{epochs_.accepted, epochs_.accepted_from, epoch});
}

// Into scratch_.
void Log::write_base(LogPosition position, bool installed) {
    scratch_.clear();
    const std::size_t start = detail::open_record(RecordKind::base, scratch_);
    Writer writer(scratch_);
    writer.zxid(position.zxid), writer.u32(position.crc);
    writer.u32(epochs_.accepted), writer.u32(epochs_.accepted_from.value);
    writer.u32(epochs_.current);
    writer.u8(installed ? 1 : 0);
    detail::close_record(start, scratch_);
    COORD_ASSERT(scratch_.size() == detail::base_record_bytes);
}

void Log::drop_through(std::size_t count) {
    COORD_ASSERT(count <= entries_.size());
    for (std::size_t i = 0; i < count; i++) {
        base_ = LogPosition{entries_.front().zxid, entries_.front().crc};
        entries_.pop();
    }
    const auto kept = std::upper_bound(admits_.begin(), admits_.end(), base_.zxid);
    admits_.erase(admits_.begin(), kept);
    const std::uint32_t needed = entries_.empty()
        ? first_block_ + static_cast<std::uint32_t>(blocks_.size())
        : entries_.front().block;
    for (; first_block_ < needed; first_block_ += 1) {
        Block& block = blocks_.front();
        if (block.size == detail::log_block_bytes) spare_block(std::move(block));
        block.bytes = {};
        blocks_.pop();
    }
}

void Log::spare_block(Block&& block) {
    if (spare_blocks_.size() == detail::spare_blocks_max) return;
    spare_blocks_.reserve(detail::spare_blocks_max);
    spare_blocks_.push_back(std::move(block));
}

void Log::drop_needless() {
    if (needless_ <= base_.zxid) return;
    drop_through((std::min)(find(needless_), detail::dropped_at_once_max));
}

void Log::replace_with(LogPosition position) {
    drop_through(entries_.size());
    base_ = position;
    for (std::size_t i = 0; i < marks_.size(); i++) marks_[i].last = Zxid{};  // L2
    durable_last_ = Zxid{};
}

Errc Log::begin_snapshot(LogPosition position) {
    COORD_ASSERT(contains(position.zxid) && position.zxid <= durable_last_);  // L4
    COORD_ASSERT(position.zxid > snapshot_position_.zxid);
    begun_position_ = position, begun_bytes_ = 0, begun_epochs_ = epochs_;
    write_base(position, false);
    const Errc error = storage_.begin_snapshot();
    return error != Errc::ok ? error : storage_.write_snapshot(scratch_);
}

Errc Log::write_snapshot(BytesView state_piece) {
    COORD_ASSERT(begun_position_.zxid > Zxid{});
    begun_bytes_ += state_piece.size();
    return storage_.write_snapshot(state_piece);
}

// Epochs that are younger than the snapshot's beginning are written once more, so that no record
// before the first entry that is kept is needed (L5).
Errc Log::end_snapshot(std::size_t entries_kept) {
    COORD_ASSERT(begun_position_.zxid > snapshot_position_.zxid);
    COORD_ASSERT(contains(begun_position_.zxid));  // L4: what is committed is never cut
    Sequence first_needed = storage_.appended() + 1;
    Errc error = Errc::ok;
    if (epochs_.accepted != begun_epochs_.accepted) {
        error = write_epochs(RecordKind::accepted, epochs_);
    }
    if (error == Errc::ok && epochs_.current != begun_epochs_.current) {
        error = write_epochs(RecordKind::current, epochs_);
    }
    if (error != Errc::ok) return error;
    const std::size_t covered = find(begun_position_.zxid);
    const std::size_t dropped = covered > entries_kept ? covered - entries_kept : 0;
    if (dropped < entries_.size()) {
        first_needed = (std::min)(first_needed, entries_[dropped].sequence);
    }
    error = storage_.end_snapshot(first_needed, false);
    if (error != Errc::ok) return error;
    // The log is longest now. How many blocks that is differs a little from snapshot to snapshot: a
    // few more are got here, so that no write has to.
    const std::size_t wanted = spare_blocks_.empty() && dropped > 0 ? blocks_.size() / 16 + 1 : 0;
    const std::size_t slack = (std::min)(wanted, detail::spare_blocks_max);
    for (std::size_t i = 0; i < slack; i++) spare_block(make_block(detail::log_block_bytes));
    if (dropped > 0) needless_ = entries_[dropped - 1].zxid;
    drop_needless();
    snapshot_position_ = begun_position_, snapshot_bytes_ = begun_bytes_;
    snapshot_sequence_ = storage_.appended();
    begun_position_ = LogPosition{};
    dirty_ = true;
    return Errc::ok;
}

Errc Log::begin_install(LogPosition position) {
    COORD_ASSERT(position.zxid > Zxid{});
    begun_position_ = position, begun_bytes_ = 0, begun_epochs_ = epochs_;
    write_base(position, true);
    const Errc error = storage_.begin_snapshot();
    return error != Errc::ok ? error : storage_.write_snapshot(scratch_);
}

// The epochs stand in it: no record before it is left.
void Log::give_up_snapshot() {
    if (begun_position_.zxid == Zxid{}) return;
    begun_position_ = LogPosition{};
    (void)storage_.begin_snapshot();  // a storage that fails says so at the next flush
}

Errc Log::end_install() {
    COORD_ASSERT(begun_position_.zxid > Zxid{});
    COORD_ASSERT(epochs_.accepted == begun_epochs_.accepted);  // L5
    COORD_ASSERT(epochs_.current == begun_epochs_.current);
    const Errc error = storage_.end_snapshot(storage_.appended() + 1, true);
    if (error != Errc::ok) return error;
    replace_with(begun_position_);
    snapshot_position_ = begun_position_, snapshot_bytes_ = begun_bytes_;
    snapshot_sequence_ = storage_.appended();
    begun_position_ = LogPosition{};
    dirty_ = true, anchored_ = true;
    return Errc::ok;
}

// A storage that is full is asked to flush nothing, too: so it finds out that there is room again.
Errc Log::flush() {
    if (!dirty_) return storage_.has_room() ? Errc::ok : storage_.flush();
    dirty_ = false;
    Mark& mark = marks_.push();
    mark.sequence = storage_.appended(), mark.last = last().zxid, mark.epochs = epochs_;
    mark.flushed_at = now_;
    return storage_.flush();
}

Errc Log::refresh_durable() {
    if (storage_.health() != Errc::ok) return Errc::storage_failed;
    const Sequence durable = storage_.durable();
    for (; !marks_.empty() && marks_.front().sequence <= durable; marks_.pop()) {
        durable_last_ = marks_.front().last;
        durable_epochs_ = marks_.front().epochs;
    }
    drop_needless();
    return Errc::ok;
}

COORD_RARE
void Log::audit() const {
    LogPosition before = base_;
    Txn txn;
    for (std::size_t i = 0; i < entries_.size(); i++) {
        const Entry& entry = entries_[i];
        const Errc decoded = decode_entry(bytes_of(entry), txn);
        COORD_ASSERT(decoded == Errc::ok);
        COORD_ASSERT(txn.previous == before.zxid && txn.previous_crc == before.crc);  // L1
        before = LogPosition{entry.zxid, entry.crc};
    }
    for (const Zxid zxid : admits_) (void)admit_at(zxid);
    COORD_ASSERT(durable_last_ <= last().zxid);  // L2
    COORD_ASSERT(epochs_.current <= epochs_.accepted);  // L3
    COORD_ASSERT(durable_epochs_.accepted <= epochs_.accepted);
    COORD_ASSERT(durable_epochs_.current <= epochs_.current);
    COORD_ASSERT(snapshot_position_.zxid >= base_.zxid || snapshot_position_.zxid == Zxid{});
}

// =================================================================================================
// Part Two, chapter 8: Messages
// =================================================================================================

namespace detail {

constexpr std::uint32_t message_magic = 0x636f7201;  // FORMAT: "cor", version 1

enum Field : std::uint32_t {  // FORMAT: fields are written in this order
    field_attempt = 1u << 0,
    field_leader = 1u << 1,
    field_accepted_epoch = 1u << 2,
    field_current_epoch = 1u << 3,
    field_zxid = 1u << 4,
    field_crc = 1u << 5,
    field_commit = 1u << 6,
    field_digest = 1u << 7,
    field_sequence = 1u << 8,
    field_confirmed = 1u << 9,
    field_touch = 1u << 10,
    field_offset = 1u << 11,
    field_total = 1u << 12,
    field_phase = 1u << 13,
    field_heard = 1u << 14,
    field_reachable = 1u << 15,
    field_payload = 1u << 16,
    field_storage = 1u << 17,
};

inline std::uint32_t fields_of(MessageType type) {  // FORMAT
    switch (type) {
        case MessageType::notification:
            return field_leader | field_current_epoch | field_zxid | field_sequence | field_phase |
                   field_heard | field_reachable;
        case MessageType::follower_info:
            return field_attempt | field_leader | field_accepted_epoch | field_phase |
                   field_storage;
        case MessageType::leader_info: return field_attempt | field_sequence;
        case MessageType::ack_epoch:
            return field_attempt | field_current_epoch | field_zxid | field_crc | field_sequence |
                   field_phase | field_storage;
        case MessageType::diff:
        case MessageType::trunc: return field_attempt | field_zxid;
        case MessageType::snap: return field_attempt | field_zxid | field_crc | field_total;
        case MessageType::chunk_request: return field_attempt | field_zxid | field_offset;
        case MessageType::chunk:
            return field_attempt | field_zxid | field_offset | field_total | field_payload;
        case MessageType::new_leader: return field_zxid;
        case MessageType::up_to_date: return field_commit;
        case MessageType::proposal: return field_zxid | field_commit | field_payload;
        case MessageType::ack:
            return field_attempt | field_zxid | field_commit | field_offset | field_phase;
        case MessageType::commit: return field_commit | field_digest;
        case MessageType::ping:
            return field_commit | field_digest | field_sequence | field_confirmed | field_phase;
        case MessageType::pong:
            return field_attempt | field_sequence | field_touch | field_offset | field_total |
                   field_payload;
        case MessageType::request: return field_payload;
        case MessageType::sync: return field_sequence;
        case MessageType::synced: return field_zxid | field_sequence;
        case MessageType::refused: return field_confirmed | field_phase;
    }
    return 0;
}

// One list of the fields for both directions: Do is called with each field that the type has.
template <class Fields, class Do>
void each_field(Fields& m, Do&& f) {
    const std::uint32_t has = fields_of(m.type);
    if (has & field_attempt) f(m.attempt);
    if (has & field_leader) f(m.leader.value);
    if (has & field_accepted_epoch) f(m.accepted_epoch);
    if (has & field_current_epoch) f(m.current_epoch);
    if (has & field_zxid) f(m.zxid.value);
    if (has & field_crc) f(m.crc);
    if (has & field_commit) f(m.commit.value);
    if (has & field_digest) f(m.digest);
    if (has & field_sequence) f(m.sequence);
    if (has & field_confirmed) f(m.confirmed);
    if (has & field_touch) f(m.touch);
    if (has & field_offset) f(m.offset);
    if (has & field_total) f(m.total);
    if (has & field_phase) f(m.phase);
    if (has & field_heard) f(m.heard);
    if (has & field_reachable) f(m.reachable);
    if (has & field_storage) f(m.storage);
    if (has & field_payload) f(m.payload);
}

// Into room for all fields: they are appended to a message in one go, then the payload.
struct PutField {
    char* at;
    BytesView payload;
    void operator()(std::uint8_t value) { *at++ = static_cast<char>(value); }
    void operator()(std::uint32_t value) { store_big32(at, value), at += 4; }
    void operator()(std::uint64_t value) { store_big64(at, value), at += 8; }
    void operator()(BytesView value) {
        COORD_ASSERT(value.size() <= UINT32_MAX && payload.empty());
        (*this)(static_cast<std::uint32_t>(value.size()));
        payload = value;
    }
};

struct TakeField {
    Reader& in;
    void operator()(std::uint8_t& value) const { value = in.u8(); }
    void operator()(std::uint32_t& value) const { value = in.u32(); }
    void operator()(std::uint64_t& value) const { value = in.u64(); }
    void operator()(BytesView& value) const { value = in.bytes(in.left()); }
};

}  // namespace detail

const char* name(MessageType type) {
    switch (type) {
        case MessageType::notification: return "NOTIFICATION";
        case MessageType::follower_info: return "FOLLOWERINFO";
        case MessageType::leader_info: return "LEADERINFO";
        case MessageType::ack_epoch: return "ACKEPOCH";
        case MessageType::diff: return "DIFF";
        case MessageType::trunc: return "TRUNC";
        case MessageType::snap: return "SNAP";
        case MessageType::chunk_request: return "CHUNKREQUEST";
        case MessageType::chunk: return "CHUNK";
        case MessageType::new_leader: return "NEWLEADER";
        case MessageType::up_to_date: return "UPTODATE";
        case MessageType::proposal: return "PROPOSAL";
        case MessageType::ack: return "ACK";
        case MessageType::commit: return "COMMIT";
        case MessageType::ping: return "PING";
        case MessageType::pong: return "PONG";
        case MessageType::request: return "REQUEST";
        case MessageType::sync: return "SYNC";
        case MessageType::synced: return "SYNCED";
        case MessageType::refused: return "REFUSED";
    }
    return "unknown";
}

const char* text(Refusal refusal) {
    switch (refusal) {
        case Refusal::rolled_back: return "its storage has lost what it had acknowledged";
        case Refusal::twice: return "another replica is alive under this id";
    }
    return "the leader has refused it";
}

void encode_message(const Message& message, Bytes& out) {
    char room[message_overhead_bytes];
    detail::PutField put{room, {}};
    put(detail::message_magic), put(std::uint32_t{0});
    put(message.ensemble);
    put(message.from.value), put(message.to.value);
    put(message.nonce);
    put(static_cast<std::uint8_t>(message.type));
    put(message.epoch);
    COORD_ASSERT(put.at == room + message_header_bytes);
    detail::each_field(message, put);
    const std::size_t size = static_cast<std::size_t>(put.at - room);
    COORD_ASSERT(size <= message_overhead_bytes);
    std::uint32_t crc = crc32c(BytesView(room + 8, size - 8));
    if (message.type != MessageType::proposal) crc = crc32c(put.payload, crc);
    detail::store_big32(room + 4, crc);
    out.append(room, size);
    out.append(put.payload);
}

Errc decode_message(BytesView bytes, Message& message) {
    Reader in(bytes);
    if (in.u32() != detail::message_magic) return Errc::corrupt;
    const std::uint32_t crc = in.u32();
    message = Message{};
    message.ensemble = in.u64();
    message.from = PeerId{in.u32()}, message.to = PeerId{in.u32()};
    message.nonce = in.u64();
    const std::uint8_t type = in.u8();
    if (type == 0 || type > message_type_last) return Errc::corrupt;
    message.type = static_cast<MessageType>(type);
    message.epoch = in.u32();
    detail::each_field(message, detail::TakeField{in});
    if (!in.done()) return Errc::corrupt;
    BytesView covered = bytes.substr(8);
    if (message.type == MessageType::proposal) covered.remove_suffix(message.payload.size());
    return crc32c(covered) == crc ? Errc::ok : Errc::corrupt;
}

Voters::Voters(std::vector<PeerId> ids) : ids_(std::move(ids)) {
    COORD_ASSERT(is_valid(ids_));
    for (std::size_t i = 1; i < ids_.size(); i++) {  // they are few
        for (std::size_t j = i; j > 0 && ids_[j] < ids_[j - 1]; j--) {
            std::swap(ids_[j], ids_[j - 1]);
        }
    }
}

bool Voters::is_valid(const std::vector<PeerId>& ids) {
    if (ids.empty() || ids.size() > count_max) return false;
    for (std::size_t i = 0; i < ids.size(); i++) {
        if (ids[i] == PeerId{}) return false;
        for (std::size_t j = 0; j < i; j++) {
            if (ids[j] == ids[i]) return false;
        }
    }
    return true;
}

std::uint64_t Voters::bit(PeerId id) const {
    for (std::size_t i = 0; i < ids_.size(); i++) {
        if (ids_[i] == id) return std::uint64_t{1} << i;
    }
    return 0;
}

bool Voters::is_quorum(std::uint64_t bits) const {
    COORD_ASSERT(!ids_.empty());
    std::size_t count = 0;
    for (std::size_t i = 0; i < ids_.size(); i++) count += (bits >> i) & 1u;
    return count > ids_.size() / 2;
}

void Outbox::send(PeerId to, Message& message) {
    COORD_ASSERT(to != self_ && to != PeerId{});
    message.from = self_, message.to = to;
    message.ensemble = ensemble_, message.nonce = nonce_;
    Piece piece{to, bytes_.size(), 0};
    encode_message(message, bytes_);
    piece.size = bytes_.size() - piece.offset;
    pieces_.push() = piece;
}

// -- Seals ---------------------------------------------------------------------------------------

namespace detail {

constexpr std::uint32_t seal_magic = 0x636f7301;  // FORMAT: "cos", version 1
constexpr std::uint8_t seal_message = 1;          // FORMAT
constexpr std::uint8_t seal_hello = 2;            // FORMAT
constexpr std::size_t seal_header_bytes = 29;
constexpr std::size_t seal_hash_bytes = 16;
static_assert(seal_header_bytes + seal_hash_bytes == Seals::overhead_bytes, "");

static SipHash siphash_at(const char* bytes) {
    return SipHash{load_little64(bytes), load_little64(bytes + 8)};
}

}  // namespace detail

bool Seals::is_valid(const std::vector<Bytes>& keys) {
    if (keys.size() > keys_max) return false;
    for (const Bytes& key : keys) {
        if (key.size() != key_bytes) return false;
        if (key.find_first_not_of('\0') == Bytes::npos) return false;  // somebody forgot to fill it
    }
    return true;
}

Seals::Seals(PeerId self, std::uint64_t ensemble, std::uint64_t nonce, std::uint64_t entropy,
             const std::vector<Bytes>& keys, Duration retry)
    : self_(self), ensemble_(ensemble), nonce_(nonce), retry_(retry), rng_(entropy),
      key_count_(keys.size()) {
    COORD_ASSERT(nonce != 0 && !keys.empty() && is_valid(keys));
    for (std::size_t i = 0; i < keys.size(); i++) {
        keys_[i * 2] = detail::siphash_at(keys[i].data());
        keys_[i * 2 + 1] = detail::siphash_at(keys[i].data() + key_bytes / 2);
    }
}

SipHash Seals::key_for(std::size_t place, PeerId from, PeerId to) const {
    Bytes context = "coord: seal";
    Writer writer(context);
    writer.u64(ensemble_), writer.u32(from.value), writer.u32(to.value);
    const SipHash made = siphash(context, keys_[place * 2]);
    const SipHash& rest = keys_[place * 2 + 1];
    return SipHash{made.low ^ rest.low, made.high ^ rest.high};
}

Seals::Peer Seals::peer_of(PeerId id) const {
    Peer peer;
    peer.own = key_for(0, self_, id);
    for (std::size_t i = 0; i < key_count_; i++) peer.theirs[i] = key_for(i, id, self_);
    return peer;
}

// Whoever is here has shown a key, or is sent to: strangers fill nothing. To forget one is safe: it
// is challenged again.
Seals::Peer& Seals::take_in(Time now, PeerId id, const Peer* known) {
    const auto found = peers_.find(id.value);
    if (found != peers_.end()) return found->second.heard_at = now, found->second;
    if (peers_.size() >= peers_max) {
        auto oldest = peers_.begin();
        for (auto each = peers_.begin(); each != peers_.end(); ++each) {
            if (each->second.heard_at < oldest->second.heard_at) oldest = each;
        }
        peers_.erase(oldest);
    }
    Peer& peer = peers_.at_or_new(id.value);
    peer = known != nullptr ? *known : peer_of(id);
    peer.heard_at = now;
    COORD_ASSERT(peer.nonce == 0 && peers_.size() <= peers_max);
    return peer;
}

std::uint64_t Seals::life_of(PeerId id) const {
    const auto found = peers_.find(id.value);
    return found == peers_.end() ? 0 : found->second.nonce;
}

BytesView Seals::content(BytesView sealed) {
    if (sealed.size() < overhead_bytes) return sealed;
    if (detail::load_big32(sealed.data()) != detail::seal_magic) return sealed;
    return sealed.substr(detail::seal_header_bytes, sealed.size() - overhead_bytes);
}

void Seals::begin(Peer& peer, std::uint8_t kind, std::uint64_t to) {
    out_.clear();
    Writer writer(out_);
    writer.u32(detail::seal_magic), writer.u8(kind);
    writer.u64(nonce_), writer.u64(to), writer.u64(++peer.sent);
    COORD_ASSERT(out_.size() == detail::seal_header_bytes);
}

BytesView Seals::end(const Peer& peer) {
    COORD_ASSERT(peer.own != SipHash{});
    const SipHash hash = siphash(out_, peer.own);
    char bytes[detail::seal_hash_bytes];
    for (std::size_t i = 0; i < 8; i++) {
        bytes[i] = static_cast<char>(hash.low >> 8 * i);
        bytes[i + 8] = static_cast<char>(hash.high >> 8 * i);
    }
    out_.append(bytes, sizeof bytes);
    return out_;
}

BytesView Seals::seal(Time now, PeerId to, BytesView message) {
    Peer& peer = take_in(now, to, nullptr);
    if (peer.nonce == 0) {
        return now - peer.greeted_at < retry_ ? BytesView{} : greet(now, peer, 0, true, 0);
    }
    begin(peer, detail::seal_message, peer.nonce);
    out_.append(message);
    COORD_ASSERT(out_.size() == message.size() + detail::seal_header_bytes);
    return end(peer);
}

// The challenge is the same until it is answered: the answer may be slower than the repetition.
BytesView Seals::greet(Time now, Peer& peer, std::uint64_t to, bool asks, std::uint64_t echo) {
    while (asks && peer.challenge == 0) peer.challenge = rng_.next();
    COORD_ASSERT(asks || to != 0);  // else it says nothing to anybody
    if (asks) peer.greeted_at = now;
    begin(peer, detail::seal_hello, to);
    Writer writer(out_);
    writer.u64(asks ? peer.challenge : 0), writer.u64(echo);
    return end(peer);
}

bool Seals::is_sealed(const Peer& peer, BytesView bytes) const {
    COORD_ASSERT(bytes.size() >= overhead_bytes && key_count_ > 0);
    const std::size_t size = bytes.size() - detail::seal_hash_bytes;
    const SipHash hash = detail::siphash_at(bytes.data() + size);
    for (std::size_t i = 0; i < key_count_; i++) {
        if (siphash(bytes.substr(0, size), peer.theirs[i]) == hash) return true;
    }
    return false;
}

bool Seals::is_new(Peer& peer, std::uint64_t sequence) {
    if (sequence > peer.newest) {
        const std::uint64_t step = sequence - peer.newest;
        peer.seen = (step < window ? peer.seen << step : 0) | 1;
        peer.newest = sequence;
        return true;
    }
    const std::uint64_t behind = peer.newest - sequence;
    if (behind >= window || (peer.seen >> behind & 1) != 0) return false;
    peer.seen |= std::uint64_t{1} << behind;
    return true;
}

Seals::Verdict Seals::open(Time now, PeerId from, BytesView bytes, BytesView& message,
                           BytesView& answer) {
    message = answer = BytesView{};
    Reader in(bytes);
    if (in.u32() != detail::seal_magic || bytes.size() < overhead_bytes) return Verdict::unsealed;
    const std::uint8_t kind = in.u8();
    const auto found = peers_.find(from.value);
    const bool is_known = found != peers_.end();
    const Peer made = is_known ? Peer{} : peer_of(from);
    if (!is_sealed(is_known ? found->second : made, bytes)) return Verdict::unsealed;
    Peer& peer = take_in(now, from, &made);
    if (kind == detail::seal_hello) {
        if (bytes.size() != overhead_bytes + 16) return Verdict::unsealed;
        return on_hello(now, peer, in, answer), Verdict::hello;
    }
    if (kind != detail::seal_message) return Verdict::unsealed;
    const std::uint64_t nonce = in.u64(), to = in.u64(), sequence = in.u64();
    const bool is_theirs = nonce == peer.nonce && nonce != 0;
    if (!is_theirs || to != nonce_) {
        // Old; or one of us has begun anew, and the other has to hear of it.
        if (now - peer.greeted_at < retry_) return Verdict::replayed;
        answer = greet(now, peer, nonce, !is_theirs, 0);
        peer.greeted_at = now;
        return Verdict::replayed;
    }
    if (!is_new(peer, sequence)) return Verdict::replayed;
    message = content(bytes);
    COORD_ASSERT(peer.nonce == nonce && to == nonce_);  // K1
    return Verdict::message;
}

// What was sent before an answer to this life's challenge may be older than this life; what is sent
// after it is not. So the window begins behind it, and all that is before it has been seen.
void Seals::on_hello(Time now, Peer& peer, Reader in, BytesView& answer) {
    const std::uint64_t nonce = in.u64(), to = in.u64(), sequence = in.u64();
    const std::uint64_t challenge = in.u64(), echo = in.u64();
    if (echo != 0 && echo == peer.challenge && to == nonce_ && nonce != 0) {  // K2
        peer.challenge = 0;
        if (nonce != peer.nonce) peer.newest = sequence, peer.seen = UINT64_MAX;
        peer.nonce = nonce;
    }
    const bool asks = nonce != peer.nonce;
    if (challenge == 0 && (!asks || now - peer.greeted_at < retry_)) return;
    answer = greet(now, peer, nonce, asks, challenge);
}

// =================================================================================================
// Part Two, chapter 9: Election
// =================================================================================================

const char* name(Role role) {
    switch (role) {
        case Role::looking: return "LOOKING";
        case Role::following: return "FOLLOWING";
        case Role::leading: return "LEADING";
        case Role::failed: return "FAILED";
        case Role::observing: return "OBSERVING";
    }
    return "unknown";
}

bool operator<(const Vote& a, const Vote& b) {  // E2
    if (a.current_epoch != b.current_epoch) return a.current_epoch < b.current_epoch;
    if (a.zxid != b.zxid) return a.zxid < b.zxid;
    return a.id < b.id;
}

Election::Election(PeerId self, const Voters& voters, const Timing& timing)
    : self_(self), voters_(voters), timing_(timing), voices_(voters.size()) {}

void Election::start(Time now, const Vote& own) {
    COORD_ASSERT(own.id == self_);
    own_ = own;
    for (Voice& voice : voices_) voice.known = false;
    candidate_ = self_;
    winner_ = PeerId{};
    settled_at_ = never;
    changed_ = voters_.contains(self_);  // who has no voice does not ask sooner again (E3)
    deadline_ = now;
}

void Election::on_notification(Time now, const Message& message) {
    for (std::size_t i = 0; i < voters_.size(); i++) {
        if (voters_[i] != message.from || message.from == self_) continue;
        Voice& voice = voices_[i];
        const bool same_life = voice.nonce == message.nonce;
        if (same_life && message.sequence <= voice.sequence) return;  // D1: an older state
        voice.own = Vote{message.current_epoch, message.zxid, message.from};
        voice.candidate = message.leader;
        voice.role = static_cast<Role>(message.phase);
        voice.nonce = message.nonce, voice.sequence = message.sequence;
        voice.heard = message.heard, voice.reachable = message.reachable;
        voice.heard_at = now;
        voice.known = true, voice.gone = false;
        deadline_ = now;
        return;
    }
}

bool Election::is_news(const Message& message) const {
    for (std::size_t i = 0; i < voters_.size(); i++) {
        if (voters_[i] != message.from) continue;
        return voices_[i].nonce == message.nonce && message.sequence > voices_[i].sequence;
    }
    return false;
}

void Election::forget(PeerId peer) {
    for (std::size_t i = 0; i < voters_.size(); i++) {
        if (voters_[i] == peer) voices_[i].known = false, voices_[i].gone = true;
    }
}

bool Election::is_fresh(const Voice& voice, Time now) const {
    return voice.known && now - voice.heard_at <= timing_.silence;
}

std::uint64_t Election::heard(Time now) const {
    std::uint64_t bits = voters_.bit(self_);
    for (std::size_t i = 0; i < voices_.size(); i++) {
        if (is_fresh(voices_[i], now)) bits |= std::uint64_t{1} << i;
    }
    return bits;
}

std::uint64_t Election::reachable(Time now) const {
    std::uint64_t bits = voters_.bit(self_);
    for (std::size_t i = 0; i < voices_.size(); i++) {
        const bool hears_us = (voices_[i].heard & voters_.bit(self_)) != 0;
        if (is_fresh(voices_[i], now) && hears_us) bits |= std::uint64_t{1} << i;
    }
    return bits;
}

PeerId Election::best_candidate(Time now) const {
    COORD_ASSERT(own_.id == self_);
    Vote best = own_;
    bool own_stands = voters_.is_quorum(reachable(now));
    for (std::size_t i = 0; i < voices_.size(); i++) {
        const Voice& voice = voices_[i];
        if (!is_fresh(voice, now) || voice.role != Role::looking) continue;
        if ((voice.heard & voters_.bit(self_)) == 0) continue;               // E1
        if (!voters_.is_quorum(voice.reachable | voters_.bit(voters_[i]))) continue;  // E1
        if (best < voice.own || !own_stands) best = voice.own, own_stands = true;
    }
    return best.id;
}

std::uint64_t Election::agreeing(Time now) const {
    std::uint64_t bits = voters_.bit(self_);
    for (std::size_t i = 0; i < voices_.size(); i++) {
        const Voice& voice = voices_[i];
        if (!is_fresh(voice, now) || voice.role != Role::looking) continue;
        if (voice.candidate == candidate_) bits |= std::uint64_t{1} << i;
    }
    return bits;
}

void Election::consider(Time now) {
    COORD_ASSERT(winner_ == PeerId{} && candidate_ != PeerId{});
    const bool observes = !voters_.contains(self_);
    for (std::size_t i = 0; i < voices_.size(); i++) {
        const Voice& voice = voices_[i];
        const bool hears_us = observes || (voice.heard & voters_.bit(self_)) != 0;
        if (is_fresh(voice, now) && voice.role == Role::leading && hears_us) {
            winner_ = voters_[i];  // there is a leader already
            return;
        }
    }
    if (observes) return;  // E3
    const PeerId best = best_candidate(now);
    if (best != candidate_) {
        candidate_ = best;
        settled_at_ = never;
        changed_ = true;
    }
    const std::uint64_t votes = agreeing(now);
    const bool candidate_agrees = (votes & voters_.bit(candidate_)) != 0;
    if (!voters_.is_quorum(votes) || !candidate_agrees) {
        settled_at_ = never;
        return;
    }
    std::uint64_t everybody = (std::uint64_t{1} << voters_.size()) - 1;
    for (std::size_t i = 0; i < voices_.size(); i++) {
        if (voices_[i].gone) everybody &= ~(std::uint64_t{1} << i);  // nobody to wait for
    }
    if (settled_at_ == never) settled_at_ = now + timing_.settle();
    if ((votes & everybody) == everybody || settled_at_ <= now) winner_ = candidate_;
}

void Election::poll(Time now, Outbox& out) {
    if (winner_ != PeerId{}) return;
    consider(now);
    const bool has_voice = voters_.contains(self_);
    const bool hears_others = heard(now) != said_heard_ || reachable(now) != said_reachable_;
    const Duration pause = has_voice ? timing_.retry() : timing_.heartbeat;  // they may be many
    changed_ = changed_ || (has_voice && hears_others);
    if (changed_ || repeat_at_ <= now || repeat_at_ - now > pause) broadcast(now, out, pause);
    deadline_ = (std::min)(repeat_at_, settled_at_);
}

void Election::broadcast(Time now, Outbox& out, Duration pause) {
    changed_ = false;
    said_heard_ = heard(now), said_reachable_ = reachable(now);
    repeat_at_ = now + pause;
    sequence_ += 1;
    for (std::size_t i = 0; i < voters_.size(); i++) {
        if (voters_[i] == self_) continue;
        Message message;
        message.type = MessageType::notification;
        message.leader = candidate_;
        message.current_epoch = own_.current_epoch, message.zxid = own_.zxid;
        message.sequence = sequence_;
        message.phase = static_cast<std::uint8_t>(Role::looking);
        message.heard = said_heard_, message.reachable = said_reachable_;
        out.send(voters_[i], message);
    }
}

void Election::answer(PeerId to, Role role, PeerId leader, Outbox& out) {
    COORD_ASSERT(role != Role::looking && role != Role::failed && leader != PeerId{});
    Message message;
    message.type = MessageType::notification;
    message.leader = leader;
    message.current_epoch = own_.current_epoch, message.zxid = own_.zxid;
    sequence_ += 1;
    message.sequence = sequence_;
    message.phase = static_cast<std::uint8_t>(role);
    message.heard = message.reachable = voters_.bit(self_) | voters_.bit(to);
    out.send(to, message);
}

// =================================================================================================
// Part Two, chapter 10: Leader
// =================================================================================================

namespace detail {
constexpr std::size_t proposals_in_flight_max = 64;   // messages, to one peer
constexpr std::size_t chunk_bytes_max = 256 * 1024;
constexpr std::size_t observers_fetching_max = 8;
constexpr std::size_t observers_bytes_max = 1024 * 1024;  // that are streamed to them in a step
constexpr std::size_t rounds_max = 16;
constexpr std::size_t closings_max = 64;    // ends of sessions that are numbered and not applied
constexpr std::size_t ends_kept_max = 4096;  // of sessions that were local
constexpr Duration look_gap_max = seconds(10);
constexpr std::size_t silences_max = 1024;  // sessions that are looked at in a poll
constexpr std::uint32_t reaps_per_poll_max = 16;
constexpr std::uint32_t reap_looks_per_poll = 1024;
constexpr Duration reap_gap = milliseconds(1);        // between two slices of a looking through
constexpr std::size_t queued_requests_max = 65536;
constexpr Time long_ago{INT64_MIN / 4};
constexpr char no_space[] = "the storage has no space for what a leader begins with";
}  // namespace detail

Leader::Leader(PeerId self, const Voters& voters, const Timing& timing, Log& log,
               const Limits& limits, std::size_t message_bytes_max)
    : self_(self), voters_(voters), timing_(timing), log_(log), limits_(limits),
      message_bytes_max_(message_bytes_max), peers_(voters.size()) {
    COORD_ASSERT(message_bytes_max > message_overhead_bytes);
}

void Leader::know(const Machine& machine, bool may_found) {
    COORD_ASSERT(phase_ == Phase::idle);
    knows_ = true;
    may_found_ = may_found;
    table_ = log_.voters_at_end(machine);
    admitted_ = log_.admits().empty() ? Zxid{} : log_.admits().back();
}

COORD_RARE
void Leader::start(Time now) {
    COORD_ASSERT(phase_ == Phase::idle && voters_.contains(self_) && observers_.empty());
    phase_ = Phase::discovery;
    epoch_ = 0;
    own_ = Vote{log_.epochs().current, log_.last().zxid, self_};
    initial_ = committed_ = Zxid{};
    resignation_ = nullptr;
    started_at_ = phase_at_ = clock_read_at_ = ping_at_ = observers_ping_at_ = now;
    behind_at_ = timed_ = Zxid{}, behind_since_ = clock_, pace_ = Duration{};
    confirmed_sequence_ = ping_sequence_;  // no round is on its way
    while (rounds_.size() < detail::rounds_max) rounds_.push().touches.reserve(voters_.size());
    rounds_.clear();  // but no ping allocates any more
    for (std::size_t i = 0; i < peers_.size(); i++) {
        peers_[i] = Peer{};
        peers_[i].id = voters_[i], peers_[i].bit = voters_.bit(voters_[i]);
        peers_[i].heard_at = peers_[i].rewound_at = detail::long_ago;
        if (peers_[i].id != self_) continue;
        peers_[i].informed = true, peers_[i].accepted_epoch = log_.epochs().accepted;
        peers_[i].storage = peers_[i].acked_by = log_.storage_id();
        peers_[i].may_found = may_found_;
    }
    recount();
    barred_ = nullptr;
    if ((counted_ & voters_.bit(self_)) != 0) return;
    barred_ = is_founding_ ? "this storage may not found an ensemble"
                           : "this storage has not been admitted";
}

COORD_RARE
void Leader::stop() {
    phase_ = Phase::idle;
    epoch_ = 0;
    observers_.clear();
    rounds_.clear(), queued_.clear();
    observers_wait_ = false, observers_turn_ = 0;
    syncs_.clear(), own_synced_.clear();
    sessions_.clear(), opening_.clear(), ended_.clear();
    looks_ = {}, heard_.clear(), closing_ = 0, looks_wait_ = false;
    sessions_armed_ = false, ping_now_ = false;
}

Leader::Peer* Leader::find(PeerId id) {
    for (Peer& peer : peers_) {
        if (peer.id == id) return id != self_ ? &peer : nullptr;
    }
    const auto found = observers_.find(id.value);
    return found != observers_.end() ? &found->second : nullptr;
}

template <class Predicate>
std::uint64_t Leader::bits_where(Predicate&& predicate) const {
    std::uint64_t bits = 0;
    for (const Peer& peer : peers_) {
        if (predicate(peer)) bits |= peer.bit;
    }
    return bits;
}

// -- Who counts ----------------------------------------------------------------------------------

// Whenever a storage becomes known, or the table or the phase is another.
COORD_RARE
void Leader::recount() {
    is_founding_ = knows_ && table_.is_founding();
    for (const Peer& peer : peers_) {
        is_founding_ = is_founding_ || (knows_ && !table_.knows(peer.id));
    }
    const bool gathers = is_founding_ && phase_ < Phase::synchronization;
    counted_ = bits_where([&](const Peer& peer) {
        if (!knows_) return true;
        if (peer.bound) return false;  // nor if it becomes a voter
        const bool is_there = peer.storage != 0 && peer.storage == table_.storage_of(peer.id);
        const bool founds = gathers && peer.storage != 0 && peer.may_found;
        return is_there || founds;  // Z7, Z8
    });
}

bool Leader::has_quorum(std::uint64_t bits) const {
    const std::uint64_t those = bits & counted_;
    if (!is_founding_) return voters_.is_quorum(those);
    return those == (std::uint64_t{1} << voters_.size()) - 1;  // Z8
}

// From a message that says whose it is. What another storage acknowledged is not this one's.
void Leader::identify(Peer& peer, const Message& message) {
    COORD_ASSERT(peer.nonce == message.nonce && peer.id != self_);
    peer.storage = message.storage, peer.may_found = message.phase == 1;
    if (peer.acked_by != peer.storage) {  // Z7
        peer.acked_by = peer.storage;
        peer.acked = Zxid{}, peer.epoch_current = false, peer.acked_tick = 0;
        peer.pong = 0;
    }
    for (Life* const life : {&peer.proved, &peer.before}) {
        if (life->nonce == peer.nonce) life->storage = peer.storage;
    }
    if (peer.bit == 0) return;  // Z15
    recount();
    if (is_founding_ && phase_ >= Phase::synchronization && (counted_ & peer.bit) == 0) {
        resignation_ = "a voter has changed its storage before all had founded the ensemble";
    }
}

// Whether the sender of this pong and another life of the same voter are both alive: it has
// answered before the other one did, and does so after it. A life that has ended never comes back.
bool Leader::is_clone(Peer& peer, const Message& message) {
    if (message.nonce == peer.proved.nonce || message.nonce == 0) return false;
    if (message.sequence <= peer.proved.pings && peer.proved.nonce != 0) return false;  // Z10: old
    const bool again = peer.proved.nonce != 0 && message.nonce == peer.before.nonce;
    if (again) return true;
    peer.before = peer.proved;
    peer.proved = Life{message.nonce, 0, ping_sequence_};
    if (peer.nonce == message.nonce) peer.proved.storage = peer.storage;
    return false;
}

// Two lives are alive, one of which is speaking. The one whose storage counts stays, else this one.
void Leader::refuse_clone(Peer& peer, const Message& message, Outbox& out) {
    const std::uint64_t counts = table_.storage_of(peer.id);
    const Life other = peer.proved, own = peer.before;
    const bool other_stays =
        counts != 0 && other.storage == counts && own.storage != counts;
    COORD_ASSERT(own.nonce == message.nonce && other.nonce != own.nonce);
    refuse(peer, other_stays ? own.nonce : other.nonce, Refusal::twice, out);
    if (!other_stays) peer.proved = Life{own.nonce, own.storage, ping_sequence_};
    peer.before = Life{};
}

void Leader::refuse(Peer& peer, std::uint64_t nonce, Refusal refusal, Outbox& out) {
    peer.refused = nonce, peer.refusal = refusal;
    counters_.refusals += 1;
    if (peer.nonce == nonce) {
        peer.storage = 0;  // until another life says who it is
        peer.promised = peer.streaming = peer.fetching = false;
        peer.in_flight.clear();
        recount();
    }
    send_refusal(peer, out);
}

void Leader::send_refusal(Peer& peer, Outbox& out) {
    COORD_ASSERT(peer.refused != 0);
    Message message;
    message.confirmed = peer.refused, message.phase = static_cast<std::uint8_t>(peer.refusal);
    post(peer, MessageType::refused, out, message);
}

bool Leader::lacks_space() const { return resignation_ == detail::no_space; }

bool Leader::epoch_is_ours() const {
    return epoch_ > 0 && log_.durable_epochs().accepted >= epoch_;
}

void Leader::post(Peer& peer, MessageType type, Outbox& out, Message message) {
    message.type = type;
    message.epoch = epoch_is_ours() ? epoch_ : 0;  // Z1
    message.attempt = peer.attempt;
    if (type == MessageType::leader_info) message.sequence = tick_;
    out.send(peer.id, message);
}

std::size_t Leader::synced(Time now) const {
    std::size_t count = 0;
    for (const Peer& peer : peers_) count += is_in_step(peer, now) ? 1u : 0u;
    return count;
}

bool Leader::is_in_step(const Peer& peer, Time now) const {
    const bool heard = peer.id == self_ || now - peer.heard_at <= timing_.silence;
    return peer.epoch_current && heard && (peer.bit == 0 || (counted_ & peer.bit) != 0);  // Z7
}

std::uint64_t Leader::voters_in_step(Time now) const {
    return bits_where([&](const Peer& peer) { return is_in_step(peer, now); });
}

std::size_t Leader::observers_in_step(Time now) const {
    std::size_t count = 0;
    for (const auto& entry : observers_) count += is_in_step(entry.second, now) ? 1u : 0u;
    COORD_ASSERT(count <= observers_.size());
    return count;
}

COORD_RARE
void Leader::visit_peers(Time now, std::size_t observers_max,
                         const Callback<void(const PeerState&)>& visit) const {
    const auto show = [&](const Peer& peer) {
        const bool counts = (counted_ & peer.bit) != 0;
        COORD_ASSERT(!counts || peer.bit != 0);  // Z15
        visit(PeerState{peer.id, peer.bit != 0, counts, is_in_step(peer, now), peer.fetching,
                        peer.received, peer.acked, peer.heard_at});
    };
    for (const Peer& peer : peers_) {
        if (peer.id != self_) show(peer);
    }
    for (const auto& entry : observers_) {
        if (observers_max == 0) return;
        observers_max -= 1;
        show(entry.second);
    }
}

void Leader::forget(PeerId id) {
    if (Peer* peer = find(id)) peer->heard_at = detail::long_ago;
}

bool Leader::is_fetched(Time now) const {
    const auto fetches = [&](const Peer& peer) {
        return peer.fetching && now - peer.asked_at <= timing_.silence;
    };
    if (phase_ == Phase::idle) return false;
    bool is_one = bits_where(fetches) != 0;
    for (const auto& entry : observers_) is_one = is_one || fetches(entry.second);
    return is_one;
}

Zxid Leader::needed(Time now) const {
    Zxid least = log_.last().zxid;
    const auto look_at = [&](const Peer& peer) {
        const bool counts = peer.streaming && now - peer.heard_at <= timing_.silence;
        if (counts) least = (std::min)(least, peer.received);
    };
    for (const Peer& peer : peers_) look_at(peer);
    for (const auto& entry : observers_) look_at(entry.second);
    return least;
}

// -- Observers -----------------------------------------------------------------------------------

// Z15. RETURNS null where it is to ask again, later or somebody else.
COORD_RARE
Leader::Peer* Leader::take_on(const Message& message) {
    const bool is_somebody = message.from != self_ && message.from != PeerId{};
    const bool asks = message.type == MessageType::follower_info && is_somebody;
    if (!asks || !is_established() || observers_.size() >= limits_.observers_max) return nullptr;
    COORD_ASSERT(!voters_.contains(message.from));  // Z15: those are known
    Peer& peer = observers_.at_or_new(message.from.value);
    peer.id = message.from;
    peer.rewound_at = detail::long_ago;
    return &peer;
}

// One that is forgotten hears nothing any more, and looks for a leader once more.
void Leader::forget_observers(Time now) {
    for (auto each = observers_.begin(); each != observers_.end();) {
        const bool is_silent = now - each->second.heard_at > timing_.silence * 2;
        if (is_silent) {
            each = observers_.erase(each);
        } else {
            ++each;
        }
    }
}

bool Leader::are_many_fetching(Time now) const {
    std::size_t count = 0;
    for (const auto& entry : observers_) {
        const Peer& peer = entry.second;
        if (peer.fetching && now - peer.asked_at <= timing_.silence) count += 1;
    }
    return count >= detail::observers_fetching_max;
}

// -- Messages ------------------------------------------------------------------------------------

// Whether a message is of an attempt that its sender has given up since. A life that we have not
// heard of is no older than the one that we know.
bool Leader::is_stale(const Peer& peer, const Message& message) const {
    return message.nonce == peer.nonce && message.attempt < peer.attempt;
}

bool Leader::receive(Time now, const Message& message, Outbox& out) {
    Peer* peer = find(message.from);
    if (phase_ == Phase::idle) return false;
    if (peer == nullptr) peer = take_on(message);
    if (peer == nullptr) return false;
    run_clock(now);  // touches count from now on, not from the poll before
    if (peer->refused != 0 && message.nonce == peer->refused) {
        send_refusal(*peer, out);
        return true;
    }
    if (message.type == MessageType::follower_info) {
        peer->heard_at = now;
        on_follower_info(now, *peer, message, out);
        return true;
    }
    if (!epoch_is_ours() || message.epoch != epoch_) return false;
    peer->heard_at = now;
    switch (message.type) {
        case MessageType::ack_epoch: on_ack_epoch(now, *peer, message, out); return true;
        case MessageType::ack: on_ack(now, *peer, message, out); return true;
        case MessageType::pong: break;
        case MessageType::chunk_request: on_chunk_request(*peer, message, out); return true;
        case MessageType::request: on_request(message); return true;
        case MessageType::sync: request_sync(message.sequence, message.from); return true;
        default: return false;
    }
    if (message.sequence <= ping_sequence_ && is_clone(*peer, message)) {
        refuse_clone(*peer, message, out);
        if (peer->refused == message.nonce) return true;
    }
    if (message.nonce != peer->nonce) {  // we took an old life of it for the present one
        meet(now, *peer, message);
        lose(now, *peer, out);
    } else if (message.attempt > peer->attempt) {  // it has given up the attempt that we know
        peer->attempt = message.attempt;
        if (peer->promised) lose(now, *peer, out);
    }
    on_pong(*peer, message);
    return true;
}

// Takes the message's life and attempt for the present ones. A new life counts its touches anew.
void Leader::meet(Time now, Peer& peer, const Message& message) {
    if (peer.nonce != message.nonce) {
        peer.met_at = now, peer.met_pings = ping_sequence_;
        peer.storage = 0, peer.may_found = false;  // it does not count before it has said whose
        peer.touch = peer.touch_in_parts = peer.touch_parts = peer.touch_confirmed = 0;
        peer.lease_round = 0;
        if (peer.bit != 0) {
            recount();
            const auto place = static_cast<std::size_t>(&peer - peers_.begin());
            for (std::size_t i = 0; i < rounds_.size(); i++) rounds_[i].touches[place] = 0;
        }
    }
    peer.nonce = message.nonce, peer.attempt = message.attempt;
}

COORD_RARE
void Leader::on_follower_info(Time now, Peer& peer, const Message& message, Outbox& out) {
    if (is_stale(peer, message)) return;
    meet(now, peer, message);
    identify(peer, message);
    peer.informed = true, peer.accepted_epoch = message.accepted_epoch;
    peer.promised = peer.streaming = peer.fetching = false;
    peer.in_flight.clear();
    const bool promised_away =
        message.accepted_epoch > epoch_ ||
        (message.accepted_epoch == epoch_ && message.leader != self_);
    peer.bound = epoch_ > 0 && promised_away;
    if (peer.bound && peer.bit != 0) {
        resignation_ = "a voter has promised an epoch to somebody else";
        return;
    }
    peer.repeat_at = now + timing_.retry();
    if (epoch_is_ours()) post(peer, MessageType::leader_info, out);
}

// We do not know any more what this learner has: it is to report once more.
void Leader::lose(Time now, Peer& peer, Outbox& out) {
    peer.informed = true;
    peer.promised = peer.streaming = peer.fetching = false;
    peer.in_flight.clear();
    peer.repeat_at = now + timing_.retry();
    post(peer, MessageType::leader_info, out);
}

COORD_RARE
void Leader::on_ack_epoch(Time now, Peer& peer, const Message& message, Outbox& out) {
    if (is_stale(peer, message)) return;
    if (message.zxid == Zxid{} && message.crc != 0) return;  // an empty history has no checksum
    const Vote theirs{message.current_epoch, message.zxid, self_};
    if (phase_ == Phase::promise && Vote{own_.current_epoch, own_.zxid, self_} < theirs) {
        return;  // Z2: its history is newer than ours, so it cannot count for us
    }
    // It has heard of us after the storage had acknowledged more than is there now.
    const bool lost = message.zxid < peer.acked || message.current_epoch < epoch_;
    if (knows_ && peer.bit != 0 && peer.epoch_current && message.storage == peer.acked_by &&
        message.sequence >= peer.acked_tick && lost && message.nonce != 0) {  // Z10
        return refuse(peer, message.nonce, Refusal::rolled_back, out);
    }
    meet(now, peer, message);
    identify(peer, message);
    if (peer.bit == 0 && lost) peer.epoch_current = false, peer.acked = Zxid{};  // it learns again
    peer.informed = peer.promised = true;
    peer.have = message.zxid, peer.have_crc = message.crc;
    peer.streaming = peer.fetching = false;
    peer.in_flight.clear();
    if (phase_ >= Phase::synchronization) synchronize(now, peer, out);
}

void Leader::on_ack(Time now, Peer& peer, const Message& message, Outbox& out) {
    const bool plausible = message.zxid <= log_.last().zxid && message.commit <= log_.last().zxid;
    if (phase_ < Phase::synchronization || !plausible) return;
    if (message.nonce != peer.nonce || (knows_ && peer.storage == 0)) return;  // Z7: whose is it?
    COORD_ASSERT(!knows_ || peer.acked_by == peer.storage);
    if (message.phase >= 1) {  // Z4; true for ever, whichever attempt it comes from
        if (!peer.epoch_current || message.zxid > peer.acked) peer.acked_tick = ++tick_;
        peer.epoch_current = true;
        peer.acked = (std::max)(peer.acked, message.zxid);
    }
    if (message.attempt != peer.attempt || !peer.promised) return;
    if (!peer.streaming) {
        peer.fetching = false, peer.streaming = true;
        peer.received = peer.cursor = message.commit;
        peer.in_flight.clear(), peer.progress_at = now;
    }
    if (message.commit > peer.received) {
        peer.received = message.commit, peer.progress_at = now;
        if (peer.cursor < peer.received) peer.cursor = peer.received;
    }
    while (!peer.in_flight.empty() && peer.in_flight.front() <= peer.received) {
        peer.in_flight.pop();
    }
    const bool settled = now - peer.rewound_at >= timing_.settle();
    if (message.offset == 1 && message.commit >= peer.received && settled) rewind(now, peer);
    if (message.phase == 1 && is_established()) {
        Message up_to_date;
        up_to_date.commit = committed_;
        post(peer, MessageType::up_to_date, out, up_to_date);
    }
}

void Leader::rewind(Time now, Peer& peer) {
    peer.cursor = peer.received;
    peer.in_flight.clear();
    peer.progress_at = peer.rewound_at = now;
    counters_.retransmissions += 1;
}

void Leader::on_pong(Peer& peer, const Message& message) {
    COORD_ASSERT(message.nonce == peer.nonce);
    if (message.sequence > ping_sequence_) return;
    peer.pong = (std::max)(peer.pong, message.sequence);
    Reader in(message.payload);
    while (in.left() >= 8) (void)hear(SessionId{in.u64()});
    if (!sessions_armed_) return;    // P11: what was touched then did not count
    if (message.total > 64) return;  // too many parts to account for: no lease from these
    if (message.touch > peer.touch_in_parts) {
        peer.touch_in_parts = message.touch, peer.touch_parts = 0;
    }
    if (message.touch != peer.touch_in_parts || message.offset >= message.total) return;
    peer.touch_parts |= std::uint64_t{1} << message.offset;
    const std::uint64_t whole =
        message.total == 64 ? UINT64_MAX : (std::uint64_t{1} << message.total) - 1;
    if (peer.touch_parts == whole) peer.touch = message.touch;
}

void Leader::on_chunk_request(Peer& peer, const Message& message, Outbox& out) {
    if (message.attempt != peer.attempt || !peer.fetching) return;
    peer.asked_at = peer.heard_at;
    if (message.zxid != log_.snapshot_position().zxid) return;  // repeat() names the new one
    if (message.offset >= log_.snapshot_bytes()) return;  // it has all, and is waited for
    const std::size_t room = message_bytes_max_ - message_overhead_bytes;
    scratch_.clear();
    const std::size_t size = (std::min)(room, detail::chunk_bytes_max);
    const Errc error = log_.read_snapshot(message.offset, size, scratch_);
    if (error == Errc::throttled_op) return;  // as if it were lost: the learner asks again
    error_ = error;
    if (error_ != Errc::ok) return;
    Message chunk;
    chunk.zxid = message.zxid, chunk.offset = message.offset;
    chunk.total = log_.snapshot_bytes();
    chunk.payload = scratch_;
    post(peer, MessageType::chunk, out, chunk);
}

void Leader::on_request(const Message& message) {
    Reader in(message.payload);
    while (in.left() > 0) {
        const SessionId session{in.u64()};
        const std::uint64_t cxid = in.u64(), confirmed = in.u64();
        const OpCode op = static_cast<OpCode>(in.u8());
        const BytesView body = in.bytes(in.left());
        if (!in.ok() || queued_.size() >= detail::queued_requests_max) {
            counters_.requests_ignored += 1;  // what is lost here comes again
            return;
        }
        Queued& queued = queued_.push();
        queued.session = session, queued.cxid = cxid, queued.confirmed = confirmed;
        queued.op = op;
        queued.body.assign(body.data(), body.size());
    }
}

// -- Phases --------------------------------------------------------------------------------------

void Leader::begin_promise(Time now) {
    COORD_ASSERT(phase_ == Phase::discovery);
    std::uint32_t highest = log_.epochs().accepted;
    for (const Peer& peer : peers_) {
        if (peer.informed) highest = (std::max)(highest, peer.accepted_epoch);
    }
    if (highest >= Zxid::epoch_max) {
        resignation_ = "the epochs are used up";
        return;
    }
    const Errc error = log_.accept_epoch(highest + 1, self_);  // Z1
    if (error == Errc::storage_full && voters_.size() > 1) {
        barred_ = detail::no_space;
        return;
    }
    epoch_ = highest + 1;
    phase_ = Phase::promise;
    phase_at_ = now;
    error_ = error;
}

COORD_RARE
void Leader::begin_synchronization(Time now, Outbox& out) {
    COORD_ASSERT(phase_ == Phase::promise);
    COORD_ASSERT(has_quorum(bits_where([](const Peer& p) { return p.promised; })));  // Z2
    COORD_ASSERT(log_.last().zxid == own_.zxid);
    if (is_founding_) found();  // Z8
    if (error_ != Errc::ok || barred_ != nullptr) return;
    phase_ = Phase::synchronization;
    recount();
    COORD_ASSERT((counted_ & voters_.bit(self_)) != 0);  // Z7
    initial_ = log_.last().zxid;
    const Errc error = log_.set_current_epoch(epoch_);
    if (error == Errc::storage_full && voters_.size() > 1) {
        barred_ = detail::no_space;
        return;
    }
    error_ = error;
    for (Peer& peer : peers_) {
        if (peer.id != self_ && peer.promised) synchronize(now, peer, out);
    }
}

// All voters have promised, and none has a newer history: as they are now, they are the ensemble.
void Leader::found() {
    COORD_ASSERT(is_founding_ && phase_ == Phase::promise);
    VoterTable::Places voters;
    for (const Peer& peer : peers_) {
        COORD_ASSERT(peer.promised && (counted_ & peer.bit) != 0);  // Z8
        const bool is_there = table_.storage_of(peer.id) == peer.storage;
        if (!is_there) voters.push_back({peer.id, peer.storage, false});
    }
    if (voters.empty()) return;  // the founding before this one went as far as that
    Bytes body;
    VoterTable::write(voters, body);
    Txn txn;
    txn.op = OpCode::admit, txn.body = body;
    admitted_ = append(0, txn);
    if (admitted_ == Zxid{}) {
        barred_ = detail::no_space;
        if (voters_.size() == 1) error_ = Errc::storage_full;
        return;
    }
    const bool applied = table_.apply(body);
    COORD_ASSERT(applied);
    counters_.admissions += 1;
}

void Leader::synchronize(Time now, Peer& peer, Outbox& out) {
    COORD_ASSERT(phase_ >= Phase::synchronization && peer.promised);  // Z2
    peer.in_flight.clear();
    peer.progress_at = now, peer.repeat_at = now + timing_.retry();
    Message message;
    const bool known = peer.have >= log_.base() && log_.contains(peer.have);
    if (known && log_.crc_at(peer.have) == peer.have_crc) {
        message.zxid = peer.have;
        post(peer, MessageType::diff, out, message);
    } else if (peer.have > log_.base()) {
        message.zxid = log_.position_at_or_before(Zxid{peer.have.value - 1}).zxid;
        post(peer, MessageType::trunc, out, message);
    } else {
        if (peer.bit == 0 && !peer.fetching && are_many_fetching(now)) return;  // it asks again
        const LogPosition position = log_.snapshot_position();
        COORD_ASSERT(position.zxid >= log_.base() && log_.snapshot_bytes() > 0);
        message.zxid = position.zxid, message.crc = position.crc;
        message.total = log_.snapshot_bytes();
        counters_.snapshots_sent += peer.fetching ? 0 : 1;
        if (!peer.fetching) peer.asked_at = now;
        peer.fetching = true;
        post(peer, MessageType::snap, out, message);
        return;
    }
    peer.streaming = true;
    peer.cursor = peer.received = message.zxid;
    Message new_leader;
    new_leader.zxid = initial_;
    post(peer, MessageType::new_leader, out, new_leader);
}

COORD_RARE
void Leader::begin_broadcast(Outbox& out) {
    COORD_ASSERT(phase_ == Phase::synchronization);
    phase_ = Phase::broadcast;
    committed_ = initial_;  // Z3
    for (Peer& peer : peers_) {
        if (peer.id == self_ || !peer.epoch_current) continue;
        Message message;
        message.commit = committed_;
        post(peer, MessageType::up_to_date, out, message);
    }
}

// What is sent again while its answer is missing.
void Leader::repeat(Time now, Peer& peer, Outbox& out) {
    const bool later = now < peer.repeat_at && peer.repeat_at - now <= timing_.retry();
    if (later || !peer.informed || !epoch_is_ours()) return;
    peer.repeat_at = now + timing_.retry();
    if (!peer.promised) {
        post(peer, MessageType::leader_info, out);
    } else if (peer.fetching) {
        synchronize(now, peer, out);
    } else if (peer.streaming && !peer.epoch_current) {
        Message message;
        message.zxid = initial_;
        post(peer, MessageType::new_leader, out, message);
    }
}

// Of so many bytes, and a message more.
void Leader::stream(Time now, Peer& peer, Outbox& out, std::size_t& left) {
    if (!peer.streaming) return;
    if (now - peer.heard_at > timing_.silence) {  // it goes on when we hear of it
        peer.in_flight.clear();
        peer.cursor = peer.received;
        return;
    }
    if (!peer.in_flight.empty() && now - peer.progress_at > timing_.heartbeat) rewind(now, peer);
    if (peer.cursor < log_.base()) return lose(now, peer, out);  // we have dropped what it needs
    const std::size_t room = message_bytes_max_ - message_overhead_bytes;
    const bool observes = peer.bit == 0;
    const Zxid end = observes ? committed_ : Zxid{UINT64_MAX};  // Z15
    while (peer.in_flight.size() < detail::proposals_in_flight_max && left > 0) {
        Message message;
        Zxid last_sent;
        message.payload = log_.entries_after(peer.cursor, room, last_sent, end);
        if (message.payload.empty()) return;
        COORD_ASSERT(last_sent <= end);  // Z15
        // To many the same: while one message is on its way what comes meanwhile makes one more.
        const bool is_little = last_sent == end && message.payload.size() <= room / 2;
        if (observes && is_little && !peer.in_flight.empty()) return;
        if (message.payload.size() > room) {  // written when the transport took larger ones
            if (observes) return;             // a snapshot will have it
            resignation_ = "an entry is larger than a message of the transport";
            return;
        }
        message.zxid = peer.cursor, message.commit = committed_;
        if (peer.in_flight.empty()) peer.progress_at = now;
        left -= (std::min)(left, message.payload.size());
        post(peer, MessageType::proposal, out, message);
        peer.in_flight.push() = last_sent;
        peer.cursor = last_sent;
        peer.told = (std::max)(peer.told, (std::min)(committed_, last_sent));
    }
}

// Z15: after the voters. Where many are behind voters would wait for all that these are sent: so it
// is no more than that in a step, and whose turn it was not is the first in the next.
void Leader::stream_to_observers(Outbox& out) {
    std::size_t left = detail::observers_bytes_max;
    auto each = observers_.upper_bound(observers_turn_);
    for (std::size_t i = 0; i < observers_.size() && left > 0; i++) {
        if (each == observers_.end()) each = observers_.begin();
        observers_turn_ = each->first;
        stream(clock_read_at_, each->second, out, left);
        ++each;
    }
    observers_wait_ = left == 0;
    if (!observers_wait_) observers_turn_ = 0;
}

// Z11. The others have it in their power to lead on: a quorum of them has what is not durable here.
// They are much quicker than it, and quick enough to promise an epoch: where their disks are slow,
// too, so would be an election.
bool Leader::is_disk_behind() {
    const Zxid durable = log_.durable_last(), last = log_.last().zxid;
    if (timed_ != Zxid{} && timed_ <= committed_) pace_ = clock_ - timed_at_, timed_ = Zxid{};
    if (timed_ == Zxid{} && phase_ == Phase::broadcast && last > committed_) {
        timed_ = last, timed_at_ = clock_;
    }
    const Duration open = timed_ != Zxid{} ? clock_ - timed_at_ : Duration{};
    const Duration pace = (std::max)(pace_, open);
    if (durable >= committed_ || durable > behind_at_ || pace > timing_.silence) {
        behind_at_ = durable, behind_since_ = clock_;
    }
    return clock_ - behind_since_ > (std::max)(timing_.silence, pace * 4);
}

void Leader::send(Time now, const Machine& machine, Outbox& out) {
    if (phase_ == Phase::idle) return;
    run_clock(now);
    const std::uint64_t heard = bits_where([&](const Peer& peer) {
        return peer.id == self_ || now - peer.heard_at <= timing_.silence;
    });
    const bool grace = now - started_at_ <= timing_.silence;
    const bool early = phase_ == Phase::discovery || phase_ == Phase::promise;
    if (early && now - phase_at_ > timing_.silence * 2) {
        resignation_ = is_founding_ ? "not all voters are here and may found an ensemble"
                                    : "no quorum has promised";
    }
    const std::uint64_t asked = bits_where([](const Peer& p) { return p.storage == 0; });
    if (!voters_.is_quorum(heard & (counted_ | asked)) && !grace && !(early && is_founding_)) {
        resignation_ = "no quorum is in reach";  // Z7; who it is, is about to be told
    }
    if (barred_ != nullptr && !grace) resignation_ = barred_;  // not at once: it may win again
    if (is_disk_behind()) resignation_ = "the others' disks are quicker than its own";
    if (resignation_ != nullptr) return;
    if (phase_ == Phase::discovery && barred_ == nullptr &&
        has_quorum(heard & bits_where([](const Peer& p) { return p.informed; }))) {
        begin_promise(now);
    }
    for (Peer& peer : peers_) {
        if (peer.id == self_) continue;
        std::size_t no_end = SIZE_MAX;
        repeat(now, peer, out);
        stream(now, peer, out, no_end);
    }
    for (auto [id, peer] : observers_) repeat(now, peer, out);
    ping(now, machine, out);
}

// Syncs that come while many rounds are on their way wait for an answer and share the next round:
// so that the rounds that are kept are never all younger than their answers.
bool Leader::is_sync_ping_due() const {
    return ping_now_ && ping_sequence_ - confirmed_sequence_ < detail::rounds_max / 2;
}

void Leader::ping(Time now, const Machine& machine, Outbox& out) {
    const bool due = ping_at_ <= now || ping_at_ - now > timing_.heartbeat;
    if (!due && !is_sync_ping_due()) return;
    ping_now_ = false;
    ping_at_ = now + timing_.heartbeat;
    ping_sequence_ += 1;
    if (rounds_.size() == detail::rounds_max) rounds_.pop();
    Round& round = rounds_.push();
    round.sequence = ping_sequence_, round.sent_at = now;
    round.last = log_.last().zxid, round.armed = sessions_armed_ && heard_.empty();
    round.to_observers = false;
    round.touches.clear();
    for (Peer& peer : peers_) {
        round.touches.push_back(peer.touch);
        if (peer.id == self_) peer.pong = ping_sequence_;
        if (peer.id == self_) continue;
        if (!peer.informed && phase_ != Phase::discovery) continue;  // it follows somebody else
        post_ping(peer, machine, out);
    }
    const bool is_their_time =
        observers_ping_at_ <= now || observers_ping_at_ - now > timing_.heartbeat;
    if (is_their_time) ping_observers(now, machine, out);
}

void Leader::post_ping(Peer& peer, const Machine& machine, Outbox& out) {
    Message message;
    message.sequence = ping_sequence_, message.commit = committed_;
    message.digest = machine.applied() == committed_ ? machine.digest() : 0;
    message.confirmed = peer.touch_confirmed;
    message.phase = log_.has_room() ? 0 : 1;
    post(peer, MessageType::ping, out, message);
}

// Once a heartbeat: the many rounds of syncs are between voters.
void Leader::ping_observers(Time now, const Machine& machine, Outbox& out) {
    COORD_ASSERT(!rounds_.empty() && rounds_.back().sequence == ping_sequence_);
    observers_ping_at_ = now + timing_.heartbeat;
    forget_observers(now);
    rounds_.back().to_observers = !observers_.empty();
    const std::uint64_t oldest = rounds_.front().sequence;
    for (auto [id, peer] : observers_) {
        COORD_ASSERT(peer.bit == 0);  // Z15: its pong is of no quorum
        if (peer.lease_round < oldest) {
            peer.lease_round = ping_sequence_, peer.lease_touch = peer.touch;
        }
        post_ping(peer, machine, out);
    }
}

void Leader::advance(Time now, Outbox& out) {
    if (phase_ == Phase::idle || resignation_ != nullptr) return;
    std::size_t place = 0;
    while (peers_[place].id != self_) place += 1;
    Peer& own = peers_[place];
    if (phase_ == Phase::promise && epoch_is_ours() && barred_ == nullptr) {
        if (!own.promised) {
            own.promised = true;
            for (Peer& peer : peers_) peer.repeat_at = now;
            for (Peer& peer : peers_) {
                if (peer.id != self_) repeat(now, peer, out);
            }
        }
        const std::uint64_t promised = bits_where([](const Peer& p) { return p.promised; });
        if (has_quorum(promised)) begin_synchronization(now, out);
    }
    if (phase_ >= Phase::synchronization && log_.durable_epochs().current == epoch_) {
        own.epoch_current = true;  // Z4
        own.acked = log_.durable_last();
        advance_commit();
        const auto has_all = [&](const Peer& p) { return p.epoch_current && p.acked >= initial_; };
        if (phase_ == Phase::synchronization && has_quorum(bits_where(has_all))) {
            begin_broadcast(out);
        }
    }
    confirm_rounds(out);
}

void Leader::advance_commit() {
    if (phase_ != Phase::broadcast) return;
    std::array<Zxid, Voters::count_max> acked;
    std::size_t count = 0;
    for (const Peer& peer : peers_) {
        if (peer.epoch_current && peer.acked > committed_) acked[count++] = peer.acked;
    }
    for (std::size_t i = 0; i < count; i++) {
        const Zxid candidate = acked[i];
        const auto has_it = [&](const Peer& p) { return p.epoch_current && p.acked >= candidate; };
        if (candidate > committed_ && has_quorum(bits_where(has_it))) {
            committed_ = candidate;  // Z4
        }
    }
    COORD_ASSERT(committed_ >= initial_ && committed_ <= log_.last().zxid);
}

void Leader::announce(const Machine& machine, Outbox& out) {
    if (phase_ != Phase::broadcast) return;
    for (Peer& peer : peers_) {
        if (peer.id == self_ || !peer.streaming || peer.told >= committed_) continue;
        peer.told = committed_;
        Message message;
        message.commit = committed_;
        message.digest = machine.applied() == committed_ ? machine.digest() : 0;
        post(peer, MessageType::commit, out, message);
    }
    if (!observers_.empty()) stream_to_observers(out);
}

Time Leader::next_repeat(const Peer& peer) const {
    Time deadline = never;
    const bool waiting = !peer.promised || peer.fetching || !peer.epoch_current;
    if (waiting && epoch_is_ours()) deadline = peer.repeat_at;
    if (!peer.in_flight.empty()) {
        deadline = (std::min)(deadline, peer.progress_at + timing_.heartbeat + nanoseconds(1));
    }
    return deadline;
}

Time Leader::next_deadline(Time now) const {
    if (phase_ == Phase::idle) return never;
    if (resignation_ != nullptr || is_sync_ping_due() || observers_wait_) return now;
    if (sessions_armed_ && is_admission_due(now)) return now;
    if (!queued_.empty() && sessions_armed_) return now;
    const bool looks_now = looks_wait_ && closing_ < detail::closings_max;
    if (sessions_armed_ && (looks_now || !heard_.empty()) && log_.has_room()) return now;
    Time deadline = ping_at_;
    if (reap_place_ != 0 && sessions_armed_) {
        deadline = (std::min)(deadline, clock_read_at_ + (reap_at_ - clock_));
    }
    for (const Peer& peer : peers_) {
        if (peer.id == self_ || !peer.informed) continue;
        deadline = (std::min)(deadline, next_repeat(peer));
    }
    for (const auto& entry : observers_) {
        deadline = (std::min)(deadline, next_repeat(entry.second));
    }
    return deadline;
}

// -- Rounds --------------------------------------------------------------------------------------

void Leader::request_sync(std::uint64_t sequence, PeerId from) {
    if (phase_ != Phase::broadcast) return;  // it is asked again
    Sync sync;
    sync.from = from, sync.sequence = sequence;
    sync.round = ping_sequence_ + 1;  // begun after the request
    sync.zxid = committed_;
    syncs_.push() = sync;
    ping_now_ = true;
}

void Leader::confirm_rounds(Outbox& out) {
    for (std::size_t i = 0; i < rounds_.size(); i++) {
        const Round& round = rounds_[i];
        const auto answered = [&](const Peer& p) { return p.pong >= round.sequence; };
        if (!has_quorum(bits_where(answered))) break;
        confirmed_sequence_ = round.sequence;
    }
    renew_leases();
    std::size_t kept = 0;
    for (std::size_t i = 0; i < syncs_.size(); i++) {
        const Sync sync = syncs_[i];
        if (sync.round > confirmed_sequence_) {
            syncs_[kept++] = sync;
        } else if (sync.from == PeerId{}) {
            own_synced_.push() = sync;
        } else if (Peer* peer = find(sync.from)) {
            Message message;
            message.sequence = sync.sequence, message.zxid = sync.zxid;
            post(*peer, MessageType::synced, out, message);
        }
    }
    while (syncs_.size() > kept) syncs_.pop_back();
}

// A lease counts only for who has applied every expiry that was numbered before its round: so it
// waits until those are committed, and goes out with a commit that is no lower.
void Leader::renew_leases() {
    while (!rounds_.empty() && rounds_.front().sequence <= confirmed_sequence_) {
        const Round& round = rounds_.front();
        if (round.armed && round.last > committed_) return;
        if (round.armed) lease_from_ = round.sent_at, lease_at_ = round.last;
        for (std::size_t i = 0; i < peers_.size() && round.armed; i++) {
            peers_[i].touch_confirmed = (std::max)(peers_[i].touch_confirmed, round.touches[i]);
        }
        if (round.to_observers) renew_observers_leases(round);
        rounds_.pop();
    }
}

void Leader::renew_observers_leases(const Round& round) {
    for (auto [id, peer] : observers_) {
        if (peer.lease_round != round.sequence) continue;
        peer.lease_round = 0;
        if (round.armed) peer.touch_confirmed = (std::max)(peer.touch_confirmed, peer.lease_touch);
    }
}

bool Leader::take_own_synced(std::uint64_t& sequence, Zxid& zxid) {
    if (own_synced_.empty()) return false;
    sequence = own_synced_.back().sequence, zxid = own_synced_.back().zxid;
    own_synced_.pop_back();
    return true;
}

// -- Requests and sessions -----------------------------------------------------------------------

void Leader::run_clock(Time now) {
    const Duration passed = now - clock_read_at_;
    clock_ = clock_ + (std::min)(passed, timing_.heartbeat * 2);  // a gap is nobody's fault
    clock_read_at_ = now;
}

bool Leader::can_number(const Machine& machine) {
    if (phase_ != Phase::broadcast || resignation_ != nullptr) return false;
    if (machine.applied() < initial_) return false;
    if (sessions_armed_) return true;
    sessions_armed_ = true;
    ended_until_ = initial_;
    reap_at_ = clock_ + reap_rest(), reap_place_ = 0;
    for (const auto& [id, record] : machine.sessions()) {
        LiveSession& live = sessions_.at_or_new(id);
        live.numbered = record.cxid, live.timeout_ms = record.timeout_ms;
        live.silent_ms = record.silent_ms;
        const Duration rest = milliseconds(record.timeout_ms - record.silent_ms);
        look_after(id, live, (std::max)(rest, timing_.silence));
    }
    return true;
}

void Leader::look_after(SessionId session, LiveSession& live, Duration rest) {
    live.expires_at = clock_ + rest;
    looks_.add({next_look(live), 0, session});
}

// Z13. No lease may come of a round before the log says that it was heard of: the next leader would
// end it earlier. So no round is armed that begins before that is numbered.
bool Leader::hear(SessionId session) {
    const auto found = sessions_.find(session);
    if (found == sessions_.end()) return false;
    LiveSession& live = found->second;
    live.expires_at = clock_ + milliseconds(live.timeout_ms);
    if (live.silent_ms == 0 || live.closing) return false;
    COORD_ASSERT(sessions_armed_);  // Z13
    live.silent_ms = 0;
    heard_.push_back(session);
    return true;
}

// When a round has begun, and on the strength of it: so that one is not armed either.
void Leader::touch(SessionId session) {
    if (hear(session) && !rounds_.empty()) rounds_.back().armed = false;
}

std::int64_t Leader::silent_quarters(const LiveSession& live) const {
    const std::int64_t timeout_ns = milliseconds((std::max)(live.timeout_ms, 1u)).ns;
    const std::int64_t rest_ns = (live.expires_at - clock_).ns;
    return 4 - (rest_ns * 4 + timeout_ns - 1) / timeout_ns;
}

// When it will have been silent for another quarter of its timeout, or for all of it. Soon in any
// case: the look of a session that has ended is not kept for long.
Time Leader::next_look(const LiveSession& live) const {
    const Duration timeout = milliseconds(live.timeout_ms);
    const Time quarter = live.expires_at - timeout / 4 * (3 - silent_quarters(live));
    return (std::min)(quarter, clock_ + detail::look_gap_max);
}

std::size_t Leader::body_bytes_max() const {
    return message_bytes_max_ - message_overhead_bytes - entry_header_bytes;
}

Zxid Leader::append(std::int64_t wall_ms, const Txn& request) {
    COORD_ASSERT(request.body.size() <= body_bytes_max());
    const LogPosition last = log_.last();
    COORD_ASSERT(last.zxid.epoch() <= epoch_);
    const std::uint64_t counter = last.zxid.epoch() == epoch_ ? last.zxid.counter() : 0;
    if (counter == Zxid::counter_max) {
        resignation_ = "the epoch's counter has come to its end";
        return {};
    }
    Txn txn = request;
    txn.zxid = Zxid{epoch_, counter + 1};
    txn.previous = last.zxid, txn.previous_crc = last.crc;
    txn.time_ms = wall_ms;
    const Errc error = log_.append(txn);  // Z5
    if (error == Errc::storage_full) return {};     // it comes again
    error_ = error;
    counters_.proposals += 1;
    return txn.zxid;
}

void Leader::number(std::int64_t wall_ms, const Machine& machine, const Txn& request) {
    COORD_ASSERT(phase_ == Phase::broadcast && sessions_armed_);
    const bool sound = judge_request(request.op, request.body, limits_) == Errc::ok;
    const auto found = sessions_.find(request.session);
    const bool open = request.op == OpCode::open_session;
    const bool grows = takes_space(request.op, request.body);
    if (!sound || request.body.size() > body_bytes_max() || (!open && found == sessions_.end()) ||
        (grows && !log_.has_room())) {
        counters_.requests_ignored += 1;
        return;
    }
    if (open) return number_open(wall_ms, machine, request);
    LiveSession& live = found->second;
    if (request.op == OpCode::attach_session) return number_attach(wall_ms, request, live);
    const std::uint64_t most = std::uint64_t{limits_.requests_per_session_max} * 2;
    const bool bounded = request.cxid - request.confirmed <= most;
    if (live.closing || request.cxid != live.numbered + 1 || !bounded) {  // Z6
        counters_.requests_ignored += 1;
        return;
    }
    if (append(wall_ms, request) == Zxid{}) return;
    live.numbered = request.cxid;
    live.closing = request.op == OpCode::close_session;
}

// Who attaches a session has heard of it since the request was made: it lives anew from here on.
COORD_RARE
void Leader::number_attach(std::int64_t wall_ms, const Txn& request, LiveSession& live) {
    const std::uint64_t begin = next_holding(live.numbered);
    if (live.closing || begin == 0 || request.cxid != begin) {  // Z6, M8
        counters_.requests_ignored += 1;
        return;
    }
    if (append(wall_ms, request) == Zxid{}) return;
    live.numbered = begin, live.silent_ms = 0;
    live.expires_at = clock_ + milliseconds(live.timeout_ms);
}

COORD_RARE
void Leader::number_open(std::int64_t wall_ms, const Machine& machine, const Txn& request) {
    Reader in(request.body);
    const std::uint64_t nonce = in.u64();
    const std::uint32_t timeout_ms = in.u32();
    if (machine.find_nonce(nonce) != nullptr || opening_.find(nonce) != opening_.end() ||
        (detail::is_opening_of_local(request.body) && is_outdated(nonce, request.cxid))) {
        counters_.requests_ignored += 1;
        return;
    }
    const Zxid zxid = append(wall_ms, request);
    if (zxid == Zxid{}) return;
    const SessionId id = detail::opened_id(zxid, request.body);
    detail::number_at(opening_, nonce) = id.value;
    if (sessions_.find(id) != sessions_.end()) return;  // M17: it will be refused
    LiveSession& live = sessions_.at_or_new(id);
    live.timeout_ms = timeout_ms;
    look_after(id, live, milliseconds(timeout_ms));
}

// Z14. A copy of what was asked before its end was known there can come at any time.
COORD_RARE
bool Leader::is_outdated(std::uint64_t id, std::uint64_t as_of) const {
    const auto ended = ended_.find(id);
    return Zxid{as_of} < (ended == ended_.end() ? ended_until_ : Zxid{ended->second});
}

// Of ends that are no longer kept each by itself, all count as the last one did.
COORD_RARE
void Leader::note_end(SessionId session, Zxid zxid) {
    if (!detail::may_be_local(session)) return;
    COORD_ASSERT(zxid > ended_until_);
    detail::number_at(ended_, session.value) = zxid.value;
    if (ended_.size() > detail::ends_kept_max) ended_.clear(), ended_until_ = zxid;
}

// Z8, Z9. RETURNS whom a change of the table is about, or null; nobody: the founding is complete.
COORD_RARE
const PeerId* Leader::next_admission(Time now, std::uint64_t& storage) const {
    static const PeerId nobody;
    if (!knows_ || phase_ != Phase::broadcast || admitted_ > committed_) return nullptr;
    if (is_founding_) return voters_.size() > 2 ? &nobody : nullptr;  // a majority is all of two
    for (const Peer& peer : peers_) {
        if (peer.id == self_ || peer.storage == 0 || (counted_ & peer.bit) != 0) continue;
        const bool is_in_step = peer.promised && peer.streaming && peer.epoch_current &&
                                peer.acked >= initial_;
        // A life just met may be a stranger's, beside the voter that it says it is; or one that
        // is over, and its last messages come late.
        const bool is_just_met = now - peer.met_at <= timing_.silence;
        if (!is_in_step || is_just_met || peer.pong <= peer.met_pings) continue;
        COORD_ASSERT(peer.acked_by == peer.storage);
        storage = table_.storage_of(peer.id) != 0 ? 0 : peer.storage;
        return &peer.id;
    }
    return nullptr;
}

bool Leader::is_admission_due(Time now) const {
    std::uint64_t storage = 0;
    return resignation_ == nullptr && next_admission(now, storage) != nullptr;
}

COORD_RARE
void Leader::admit(Time now, std::int64_t wall_ms) {
    COORD_ASSERT(phase_ == Phase::broadcast && sessions_armed_);
    std::uint64_t storage = 0;
    const PeerId* const voter = next_admission(now, storage);
    if (voter == nullptr) return;
    VoterTable::Places changes;
    if (*voter != PeerId{}) changes.push_back({*voter, storage, false});
    Bytes body;
    VoterTable::write(changes, body);
    Txn txn;
    txn.op = OpCode::admit, txn.body = body;
    const Zxid zxid = append(wall_ms, txn);
    if (zxid == Zxid{}) return;
    const bool applied = table_.apply(body);
    COORD_ASSERT(applied && committed_ >= admitted_);  // Z9
    admitted_ = zxid;
    counters_.admissions += 1;
    recount();
}

void Leader::on_applied(const Txn& txn, const Machine& machine) {
    if (phase_ != Phase::broadcast) return;
    if (txn.op == OpCode::open_session) {
        const SessionId id = detail::opened_id(txn.zxid, txn.body);
        opening_.erase(Reader(txn.body).u64());
        if (machine.find_session(id) != nullptr) return;
        forget(id);
        note_end(id, txn.zxid);
    } else if (txn.op == OpCode::close_session && machine.find_session(txn.session) == nullptr) {
        forget(txn.session);
        note_end(txn.session, txn.zxid);
    }
}

void Leader::forget(SessionId session) {
    const auto found = sessions_.find(session);
    if (found == sessions_.end()) return;
    COORD_ASSERT(!found->second.expiring || closing_ > 0);
    if (found->second.expiring) closing_ -= 1;
    sessions_.erase(found);
}

COORD_RARE
void Leader::audit(const Machine& machine) const {
    if (!knows_ || phase_ == Phase::idle || resignation_ != nullptr) return;
    COORD_ASSERT(log_.voters_at_end(machine).digest() == table_.digest());  // Z7
    const bool counts = (counted_ & voters_.bit(self_)) != 0;
    COORD_ASSERT(counts || barred_ != nullptr);
    COORD_ASSERT(barred_ == nullptr || phase_ < Phase::broadcast);
    for (const Peer& peer : peers_) {
        COORD_ASSERT(!peer.epoch_current || peer.storage == 0 || peer.acked_by == peer.storage);
        COORD_ASSERT(peer.storage != 0 || (counted_ & peer.bit) == 0);
    }
    COORD_ASSERT(observers_.empty() || is_established());  // Z15
    COORD_ASSERT(observers_.size() <= limits_.observers_max);
    for (const auto& entry : observers_) {
        COORD_ASSERT(entry.second.bit == 0 && !voters_.contains(entry.second.id));
    }
}

// RETURNS false where it is to be tried again.
bool Leader::expire(SessionId session, LiveSession& live, std::int64_t wall_ms) {
    if (closing_ >= detail::closings_max) return false;
    Txn close;
    close.session = session, close.op = OpCode::close_session;
    close.body = BytesView("\1", 1);
    if (append(wall_ms, close) == Zxid{}) return false;
    COORD_ASSERT(!live.closing && silent_quarters(live) >= 4);  // P10
    live.closing = live.expiring = true;  // Z6: from here on nothing of it is numbered
    closing_ += 1;
    counters_.sessions_expired += 1;
    return true;
}

// Z13. RETURNS false where the log has no room for it.
bool Leader::number_silence(std::int64_t wall_ms, BytesView body) {
    if (body.empty()) return true;
    Txn txn;
    txn.op = OpCode::silence, txn.body = body;
    return append(wall_ms, txn) != Zxid{};
}

void Leader::look_at_sessions(std::int64_t wall_ms) {
    COORD_ASSERT(sessions_armed_);
    const std::size_t most = (std::min)(detail::silences_max, body_bytes_max() / 12);
    Bytes body;
    Writer writer(body);
    std::size_t count = 0;
    for (; count < heard_.size() && count < most; count++) {
        writer.u64(heard_[count].value), writer.u32(0);
    }
    if (!number_silence(wall_ms, body)) return;
    heard_.erase(heard_.begin(), heard_.begin() + static_cast<std::ptrdiff_t>(count));
    if (clock_ < expire_at_ || !heard_.empty()) return;
    expire_at_ = clock_ + timing_.heartbeat, looks_wait_ = false;
    body.clear();
    for (count = 0; !looks_.empty() && looks_.front().at <= clock_; count++) {
        const SessionId session = looks_.front().session;
        const auto found = sessions_.find(session);
        const bool is_over = found == sessions_.end() || found->second.closing;
        const std::int64_t quarters = is_over ? 0 : silent_quarters(found->second);
        const bool has_expired = quarters >= 4;
        if (count == most || (has_expired && !expire(session, found->second, wall_ms))) {
            expire_at_ = clock_, looks_wait_ = true;  // the rest in the next poll
            break;
        }
        looks_.take();
        if (is_over || has_expired) continue;
        LiveSession& live = found->second;
        const std::uint32_t silent_ms =
            quarters > 0 ? live.timeout_ms / 4 * static_cast<std::uint32_t>(quarters) : 0;
        // Between two pongs everybody is silent; and a disk that is full is for what frees.
        const bool is_said = milliseconds(silent_ms) >= timing_.heartbeat * 2 && log_.has_room();
        if (is_said && silent_ms > live.silent_ms) {
            COORD_ASSERT(silent_ms <= live.timeout_ms);  // M9
            live.silent_ms = silent_ms;
            writer.u64(session.value), writer.u32(silent_ms);
        }
        looks_.add({next_look(live), 0, session});
    }
    number_silence(wall_ms, body);
}

// The longest interval there is means never.
Duration Leader::reap_rest() const { return (std::min)(timing_.reap_interval, never - clock_); }

// Z12. What is due is told from the state that is applied: what the log holds beyond it may make
// the reap void, which is judged again where it is applied (M7). One that was numbered before, and
// is not applied yet, is numbered once more, and is void then. A path may be too long for it, with
// a number at its end, or where it was made when the transport took larger messages.
void Leader::reap(Time now, std::int64_t wall_ms, const Machine& machine) {
    COORD_ASSERT(phase_ == Phase::broadcast && sessions_armed_);
    run_clock(now);
    if (clock_ < reap_at_) return;
    std::uint32_t looks = detail::reap_looks_per_poll;
    std::int64_t numbered = 0;
    bool has_space = true;
    while (numbered < detail::reaps_per_poll_max && has_space) {
        const std::optional<NodeView> due = machine.tree().next_due(reap_place_, looks, wall_ms);
        if (!due) break;
        Bytes body;
        Writer writer(body);
        writer.bytes(due->path), writer.zxid(due->stat.czxid);
        if (body.size() > body_bytes_max()) continue;  // it stays
        Txn txn;
        txn.op = OpCode::reap, txn.body = body;
        has_space = append(wall_ms, txn) != Zxid{};
        numbered += has_space ? 1 : 0;
    }
    COORD_ASSERT(numbered <= detail::reaps_per_poll_max && looks <= detail::reap_looks_per_poll);
    counters_.reaps += static_cast<std::uint64_t>(numbered);
    if (!has_space) reap_place_ = 0;  // another time
    const Duration pace = seconds(60) / timing_.reaps_per_minute * numbered;
    const Duration rest = reap_place_ == 0 ? reap_rest() : detail::reap_gap;
    reap_at_ = clock_ + (std::max)(pace, rest);
}

// =================================================================================================
// Part Two, chapter 11: Learner
// =================================================================================================

namespace detail {

constexpr std::uint32_t put_offs_max = 8;  // then it waits 12.8 s with the default Timing

}  // namespace detail

Learner::Learner(PeerId self, const Timing& timing, Log& log, std::uint64_t first_attempt)
    : self_(self), timing_(timing), log_(log), attempt_(first_attempt) {}

void Learner::start(Time now, PeerId leader, Zxid committed, bool observes) {
    COORD_ASSERT(phase_ == Phase::idle && leader != self_ && leader != PeerId{});
    phase_ = Phase::discovery;
    observes_ = observes;
    leader_ = leader;
    epoch_ = 0;
    attempt_ += 1;
    committed_ = (std::max)(committed_, committed);  // perhaps found out as a leader
    departure_ = nullptr;
    heard_at_ = repeat_at_ = now;
    initial_known_ = false, ack_due_ = false, pong_due_ = false, leader_full_ = false;
    ping_sequence_ = 0, touch_confirmed_ = 0;  // each leader counts its own
    put_off_ = 0;
    digest_at_ = Zxid{};
}

void Learner::stop() {
    phase_ = Phase::idle;
    leader_ = PeerId{};
    epoch_ = 0;
    forget_snapshot();
    synced_.clear();
}

void Learner::depart(const char* reason) {
    if (departure_ == nullptr) departure_ = reason;
}

void Learner::post(MessageType type, Message& message, Outbox& out) {
    message.type = type;
    message.epoch = epoch_;
    message.attempt = attempt_;
    out.send(leader_, message);
}

bool Learner::receive(Time now, const Message& message, Outbox& out) {
    if (phase_ == Phase::idle || message.from != leader_) return false;
    if (message.type == MessageType::ping && message.epoch == 0) {
        on_gathering(now, message);
        return true;
    }
    if (message.type == MessageType::leader_info) {
        on_leader_info(now, message);
        return true;
    }
    if (epoch_ == 0 || message.epoch != epoch_) {
        if (message.epoch > epoch_ && epoch_ > 0) depart("the leader has moved to a later epoch");
        return false;
    }
    heard_at_ = now;
    switch (message.type) {
        case MessageType::diff:
        case MessageType::trunc: on_cut(now, message); return true;
        case MessageType::snap: on_snap(now, message, out); return true;
        case MessageType::chunk: on_chunk(now, message, out); return true;
        case MessageType::new_leader: on_new_leader(message); return true;
        case MessageType::up_to_date: on_up_to_date(message); return true;
        case MessageType::proposal: on_proposal(message, out); return true;
        case MessageType::commit: see_commit(message.commit), see_digest(message); return true;
        case MessageType::ping: on_ping(message); return true;
        case MessageType::synced:
            synced_.push() = Synced{message.sequence, message.zxid};
            return true;
        default: return false;
    }
}

// -- Discovery -----------------------------------------------------------------------------------

// The leader is gathering a quorum and may not have heard us before; or it does so once more,
// after its epoch, and then we are to begin anew with it.
void Learner::on_gathering(Time now, const Message& message) {
    if (phase_ == Phase::discovery) {
        heard_at_ = repeat_at_ = now;
    } else if (ping_sequence_ > 0 && message.sequence > ping_sequence_) {
        depart("the leader has begun anew");
    }
}

COORD_RARE
void Learner::on_leader_info(Time now, const Message& message) {
    if (message.epoch == 0 || message.attempt != attempt_) return;  // of an attempt given up
    if (message.epoch > Zxid::epoch_max) return;
    const Log::Epochs& epochs = log_.epochs();
    const bool is_bound = !observes_;  // F7
    if (message.epoch < epochs.accepted && is_bound) {
        return depart("it has promised a later epoch");
    }
    if (message.epoch == epochs.accepted && epochs.accepted_from != leader_ && is_bound) {
        return depart("it has promised this epoch to somebody else");  // F1
    }
    if (message.epoch < epochs.current) return;  // F7; that leader's time is over
    heard_at_ = now;
    if (message.epoch > epochs.accepted) {
        COORD_ASSERT(phase_ == Phase::discovery || message.epoch > epoch_);
        error_ = log_.accept_epoch(message.epoch, leader_);  // F1
        if (is_put_off()) return;
    }
    epoch_ = message.epoch;
    answers_ = message.sequence;
    report(now, log_.last());
}

// No space for a change: it is as if the message that asked for it were lost, and comes again.
bool Learner::is_put_off() {
    if (error_ != Errc::storage_full) return false;
    error_ = Errc::ok;
    return true;
}

// Begins a new attempt: the leader is told where this history ends, or a point before.
COORD_RARE
void Learner::report(Time now, LogPosition have) {
    COORD_ASSERT(have.zxid <= log_.last().zxid);
    phase_ = Phase::promise;
    attempt_ += 1;
    have_ = have;
    repeat_at_ = now;
    forget_snapshot();
}

// -- Synchronization -----------------------------------------------------------------------------

COORD_RARE
void Learner::on_cut(Time now, const Message& message) {
    if (message.attempt != attempt_) return;  // F2
    if (is_in_step()) ack_due_ = true;        // our answer was lost
    if (phase_ != Phase::promise) return;
    const Zxid zxid = message.zxid;
    const Zxid safe = (std::max)(log_.snapshot_position().zxid,
                                 (std::min)(committed_, log_.last().zxid));
    if (zxid < safe || zxid > have_.zxid) {
        return depart("the leader lacks what is committed");
    }
    if (!log_.contains(zxid)) return report(now, log_.position_at_or_before(zxid));
    error_ = log_.truncate(zxid);
    if (is_put_off()) return;
    phase_ = Phase::receiving;
    ack_due_ = true;
}

COORD_RARE
void Learner::on_snap(Time now, const Message& message, Outbox& out) {
    if (is_in_step() && message.attempt == attempt_) ack_due_ = true;  // our answer was lost
    const bool first = phase_ == Phase::promise && message.attempt == attempt_;  // F2
    const bool other = phase_ == Phase::fetching && message.attempt == attempt_ &&
                       message.zxid > snapshot_position_.zxid;
    if ((!first && !other) || message.zxid.epoch() > epoch_ || message.zxid == Zxid{}) return;
    if (message.zxid < log_.snapshot_position().zxid || message.zxid < committed_) {
        if (message.zxid <= log_.last().zxid) return depart("the leader lacks what is committed");
    }
    phase_ = Phase::fetching;
    forget_snapshot();
    snapshot_position_ = LogPosition{message.zxid, message.crc};
    snapshot_total_ = message.total;
    ask_chunk(now, out);
}

void Learner::ask_chunk(Time now, Outbox& out) {
    repeat_at_ = now + timing_.retry();
    Message message;
    message.zxid = snapshot_position_.zxid;
    message.offset = fetched_;
    post(MessageType::chunk_request, message, out);
}

void Learner::on_chunk(Time now, const Message& message, Outbox& out) {
    if (phase_ != Phase::fetching || message.attempt != attempt_ || snapshot_whole_) return;
    if (message.zxid != snapshot_position_.zxid || message.total != snapshot_total_) return;
    if (message.offset != fetched_) return;  // repeated, or out of order
    if (message.payload.empty() || message.payload.size() > snapshot_total_ - message.offset) {
        return;
    }
    snapshot_.append(message.payload);
    fetched_ += message.payload.size();
    snapshot_whole_ = fetched_ == snapshot_total_;
    if (!snapshot_whole_) ask_chunk(now, out);
}

void Learner::forget_snapshot() {
    snapshot_.clear();
    fetched_ = 0, snapshot_whole_ = false;
}

void Learner::installed() {
    COORD_ASSERT(phase_ == Phase::fetching && snapshot_whole_);
    COORD_ASSERT(log_.last().zxid == snapshot_position_.zxid);
    forget_snapshot();
    phase_ = Phase::receiving, put_off_ = 0;
    see_commit(snapshot_position_.zxid);  // L4: a snapshot is of what is committed
    ack_due_ = true;
}

void Learner::refuse_snapshot(const char* reason) {
    forget_snapshot();
    depart(reason);
}

// What is sent of it in vain each time is a load on the leader.
void Learner::put_off_snapshot(Time now) {
    COORD_ASSERT(phase_ == Phase::fetching);
    forget_snapshot();
    put_off_ = (std::min)(put_off_ + 1, detail::put_offs_max);
    repeat_at_ = now + timing_.retry() * (std::int64_t{1} << put_off_);
}

COORD_RARE
void Learner::on_new_leader(const Message& message) {
    if (!is_in_step()) return;
    initial_ = message.zxid;
    initial_known_ = true;
    ack_due_ = true;
    make_epoch_current();
}

void Learner::make_epoch_current() {
    if (error_ != Errc::ok) return;
    if (!is_in_step() || !initial_known_ || log_.last().zxid < initial_) return;  // F4
    if (log_.epochs().current == epoch_) return;
    COORD_ASSERT(log_.epochs().current < epoch_ && is_promised(log_.epochs().accepted));
    error_ = log_.set_current_epoch(epoch_);
    (void)is_put_off();
}

COORD_RARE
void Learner::on_up_to_date(const Message& message) {
    if (!is_in_step()) return;
    see_commit(message.commit);
    ack_due_ = true;
    if (log_.durable_epochs().current == epoch_) phase_ = Phase::following;
}

// -- Broadcast -----------------------------------------------------------------------------------

void Learner::on_proposal(const Message& message, Outbox& out) {
    if (!is_in_step()) return;
    see_commit(message.commit);
    bool gap = false;
    const bool grown = append_all(message.payload, gap);
    if (gap) ack(true, out);
    if (!grown) ack_due_ = true;  // repeated: so was our answer lost
    make_epoch_current();
}

bool Learner::append_all(BytesView records, bool& gap) {
    bool grown = false;
    while (!records.empty() && error_ == Errc::ok) {
        const std::uint32_t length = Reader(records).u32();
        const BytesView record = records.substr(0, length);
        Txn txn;
        const bool is_sound = decode_entry(record, txn) == Errc::ok;
        if (!is_sound || txn.zxid.epoch() > epoch_) {  // no leader numbers ahead of its epoch
            entries_corrupt_ += 1;
            return grown;
        }
        records.remove_prefix(length);
        const LogPosition last = log_.last();
        if (txn.zxid <= last.zxid) continue;  // had it already
        if (txn.previous != last.zxid || txn.previous_crc != last.crc) {
            gap = true;  // F3
            return grown;
        }
        error_ = log_.append(record, txn);
        if (is_put_off()) return grown;
        grown = true;
    }
    return grown;
}

void Learner::see_commit(Zxid commit) {
    if (is_in_step()) committed_ = (std::max)(committed_, commit);
}

void Learner::see_digest(const Message& message) {
    if (!is_in_step() || message.digest == 0 || message.commit <= digest_at_) return;
    digest_at_ = message.commit, digest_ = message.digest;
}

void Learner::on_ping(const Message& message) {
    if (is_in_step()) see_commit(message.commit), see_digest(message);
    if (!is_promised(log_.epochs().accepted)) return;
    if (message.sequence >= ping_sequence_) {
        touch_confirmed_ = message.confirmed, touch_confirmed_at_ = message.commit;
    }
    leader_full_ = message.phase == 1;
    ping_sequence_ = (std::max)(ping_sequence_, message.sequence);
    pong_due_ = true;
    // While something is open between the two, what we have is said again: an ack may be lost.
    if (!is_serving() || message.commit != log_.last().zxid) ack_due_ = true;
}

void Learner::pong(std::uint64_t touch, BytesView sessions, std::size_t message_bytes_max,
                   Outbox& out) {
    COORD_ASSERT(pong_due_ && sessions.size() % 8 == 0);
    pong_due_ = false;
    const std::size_t part_max = (message_bytes_max - message_overhead_bytes) / 8 * 8;
    const std::size_t parts =
        (std::max)(std::size_t{1}, (sessions.size() + part_max - 1) / part_max);
    for (std::size_t i = 0; i < parts; i++) {
        Message message;
        message.sequence = ping_sequence_, message.touch = touch;
        message.offset = i, message.total = parts;
        message.payload = sessions.substr(i * part_max, part_max);
        post(MessageType::pong, message, out);
    }
}

void Learner::pong_alone(Outbox& out) {
    COORD_ASSERT(pong_due_);
    pong_due_ = false;
    Message message;
    message.sequence = ping_sequence_;
    post(MessageType::pong, message, out);
}

void Learner::request(BytesView requests, Outbox& out) {
    COORD_ASSERT(is_serving());
    Message message;
    message.payload = requests;
    post(MessageType::request, message, out);
}

void Learner::request_sync(std::uint64_t sequence, Outbox& out) {
    COORD_ASSERT(is_serving());
    Message message;
    message.sequence = sequence;
    post(MessageType::sync, message, out);
}

bool Learner::take_synced(std::uint64_t& sequence, Zxid& zxid) {
    if (synced_.empty()) return false;
    sequence = synced_.back().sequence, zxid = synced_.back().zxid;
    synced_.pop_back();
    return true;
}

// -- Steps ---------------------------------------------------------------------------------------

bool Learner::is_later(Time now) const {
    const Duration longest = timing_.retry() * (std::int64_t{1} << put_off_);
    return now < repeat_at_ && repeat_at_ - now <= longest;
}

void Learner::send(Time now, Outbox& out) {
    if (phase_ == Phase::idle) return;
    if (now - heard_at_ > timing_.silence) depart("the leader is silent");
    if (departure_ != nullptr || is_later(now)) return;
    if (phase_ == Phase::discovery) {
        repeat_at_ = now + timing_.retry();
        Message message;
        message.accepted_epoch = log_.epochs().accepted;
        message.leader = log_.epochs().accepted_from;
        message.storage = log_.storage_id(), message.phase = may_found_ ? 1 : 0;  // F6
        post(MessageType::follower_info, message, out);
    } else if (phase_ == Phase::fetching) {
        ask_chunk(now, out);  // where all of it is here, too: it may not be written yet
    }
}

// With it, all that is reported.
bool Learner::is_promise_durable() const {
    return is_promised(log_.durable_epochs().accepted) && log_.durable_last() >= have_.zxid &&
           !log_.is_waiting();
}

void Learner::acknowledge(Time now, Outbox& out) {
    if (phase_ == Phase::idle || departure_ != nullptr) return;
    if (phase_ == Phase::promise) {
        const bool durable = is_promise_durable();
        if (!durable || is_later(now)) return;
        repeat_at_ = now + timing_.retry();
        Message message;
        message.current_epoch = log_.durable_epochs().current;
        message.zxid = have_.zxid, message.crc = have_.crc;
        message.storage = log_.storage_id(), message.phase = may_found_ ? 1 : 0;  // F6
        message.sequence = answers_;
        post(MessageType::ack_epoch, message, out);
    } else if (is_in_step()) {
        const bool current = log_.durable_epochs().current == epoch_;
        const std::uint8_t phase = is_serving() ? 2 : current ? 1 : 0;
        if (ack_due_ || log_.durable_last() > acked_ || phase != acked_phase_) ack(false, out);
    }
}

void Learner::ack(bool gap, Outbox& out) {
    COORD_ASSERT(is_in_step());
    ack_due_ = false;
    const bool current = log_.durable_epochs().current == epoch_;
    acked_phase_ = is_serving() ? 2 : current ? 1 : 0;
    acked_ = log_.durable_last();
    Message message;
    message.zxid = acked_;  // F5
    message.commit = log_.last().zxid;
    message.phase = acked_phase_;
    message.offset = gap ? 1 : 0;
    post(MessageType::ack, message, out);
}

Time Learner::next_deadline() const {
    if (phase_ == Phase::idle) return never;
    const Time silent = heard_at_ + timing_.silence + nanoseconds(1);
    if (departure_ != nullptr) return heard_at_;
    if (is_in_step()) return silent;
    if (phase_ == Phase::promise && !is_promise_durable()) return silent;
    return (std::min)(silent, repeat_at_);
}

// =================================================================================================
// Part Two, chapter 12: Replica
// =================================================================================================

namespace detail {

constexpr int steps_per_poll_max = 12;
constexpr std::size_t callbacks_kept = 4096;    // of the memory for them, from poll to poll
constexpr std::size_t text_bytes_kept = 65536;  // of each
constexpr std::size_t callbacks_max = 65536;    // that wait: then a poll applies nothing more
constexpr std::size_t answers_max = 16;         // of a full size: then no more are given (R12)
constexpr std::uint64_t work_per_poll = 1024;   // a transaction, and a set, are 1: see link_work
constexpr std::uint32_t nodes_freed_per_poll = 2048;
constexpr std::size_t snapshot_slice_bytes = 64 * 1024;  // that a poll writes, or reads again
constexpr Duration snapshot_slice_gap = milliseconds(1);
constexpr std::size_t touches_max = 64;
constexpr char replaced[] = "another replica has been admitted under this id";
constexpr std::size_t transport_bytes_min = 1024;

class NoTransport final : public Transport {
public:
    void send(PeerId, BytesView) override {}
    std::size_t message_bytes_max() const override { return 64 * 1024 * 1024; }
};

inline Transport& no_transport() {
    static NoTransport transport;  // it has no state
    return transport;
}

inline const char* judge_options(const ReplicaOptions& options, const Transport& transport) {
    const std::vector<PeerId>& voters = options.voters;
    if (!Voters::is_valid(voters)) return "options: voters must be 1 to 63 distinct ids, none 0";
    const bool observes = std::find(voters.begin(), voters.end(), options.id) == voters.end();
    if (observes && &transport == &no_transport()) {
        return "options: id is not among the voters, and no transport";
    }
    if (options.id == PeerId{}) return "options: id is 0";
    if (voters.size() > 1 && &transport == &no_transport()) {
        return "options: more voters than one, and no transport";
    }
    if ((observes || voters.size() > 1) && options.entropy == 0) {
        return "options: entropy must be random, and another at each start";
    }
    const Timing& timing = options.timing;
    if (timing.heartbeat < microseconds(100) || timing.silence < timing.heartbeat * 2) {
        return "options: heartbeat is below 100 us, or silence below two heartbeats";
    }
    if (options.session_timeout_min <= Duration{} ||
        options.session_timeout_max < options.session_timeout_min) {
        return "options: the range of session timeouts is empty";
    }
    if (timing.reap_interval <= Duration{} || timing.reaps_per_minute == 0) {
        return "options: reap_interval or reaps_per_minute is not above 0";
    }
    if (options.clock_drift_permille >= 500) return "options: clock drift of 50 percent or more";
    if (!Seals::is_valid(options.ensemble_keys)) {
        return "options: ensemble_keys must be none, one or two, of 32 bytes that are random";
    }
    const std::size_t most = transport.message_bytes_max();
    if (most < transport_bytes_min) return "transport: messages under 1024 bytes";
    if (!options.ensemble_keys.empty() && most < transport_bytes_min + Seals::overhead_bytes) {
        return "transport: messages under 1069 bytes, and there are keys";
    }
    return nullptr;
}

// Nobody's id would not pass for a voter even in a replica that refuses its options.
inline ReplicaOptions with_some_id(ReplicaOptions options) {
    if (options.id == PeerId{}) options.id = PeerId{1};
    return options;
}

inline bool is_read(Request::Kind kind) {
    return kind == Request::Kind::exists || kind == Request::Kind::get ||
           kind == Request::Kind::children || kind == Request::Kind::read ||
           kind == Request::Kind::get_acl || kind == Request::Kind::whoami ||
           kind == Request::Kind::watch_since;
}

inline bool is_write(Request::Kind kind) {
    using Kind = Request::Kind;
    const auto bit = [](Kind each) { return 1u << static_cast<unsigned>(each); };
    return ((bit(Kind::create) | bit(Kind::remove) | bit(Kind::set) | bit(Kind::multi) |
             bit(Kind::close) | bit(Kind::set_acl) | bit(Kind::add_auth)) & bit(kind)) != 0;
}

// Whether the data of a write has room in a message: asked before any of it is copied.
inline bool has_room(const Request& request, std::size_t room) {
    const bool is_alone =
        request.kind == Request::Kind::create || request.kind == Request::Kind::set;
    if (is_alone && request.data.size() > room) return false;
    if (request.acl.bytes().size() > room) return false;
    for (const Op& part : request.parts) {
        const std::size_t acl = part.acl.bytes().size();
        if (part.data.size() > room || acl > room - part.data.size()) return false;
        room -= part.data.size() + acl;
    }
    return true;
}

}  // namespace detail

namespace detail {

constexpr std::size_t observers_shown = 16;

static std::uint64_t ms_of(Duration time) {
    return static_cast<std::uint64_t>((std::max)(time.ns, std::int64_t{0})) / 1000000;
}

// Text for people, piece by piece.
class Prose {
public:
    explicit Prose(Bytes& out) : out_(out) {}
    Prose& text(BytesView piece) { return out_.append(piece), *this; }
    Prose& number(std::uint64_t value) { return out_.append(std::to_string(value)), *this; }
    Prose& count(std::uint64_t value, const char* one, const char* many) {
        return number(value).text(" ").text(value == 1 ? one : many);
    }
    Prose& hex(std::uint64_t value) {
        for (int shift = 60; shift >= 0; shift -= 4) {
            out_.push_back("0123456789abcdef"[value >> shift & 15]);
        }
        return *this;
    }
    Prose& zxid(Zxid zxid) { return number(zxid.epoch()).text(".").number(zxid.counter()); }
    Prose& seconds(Duration time) {
        const std::uint64_t ms = ms_of(time);
        const Bytes rest = std::to_string(1000 + ms % 1000);
        return number(ms / 1000).text(".").text(BytesView(rest).substr(1)).text(" s");
    }

private:
    Bytes& out_;
};

// Objects and arrays of JSON.
class Json {
public:
    explicit Json(Bytes& out) : out_(out) {}
    void open(const char* key, char bracket) {
        begin(key);
        out_.push_back(bracket);
        is_first_ = true;
    }
    void close(char bracket) {
        out_.push_back(bracket);
        is_first_ = false;
    }
    void number(const char* key, std::uint64_t value) {
        begin(key);
        out_.append(std::to_string(value));
    }
    void truth(const char* key, bool value) {
        begin(key);
        out_.append(value ? "true" : "false");
    }
    void hex(const char* key, std::uint64_t value) {
        begin(key);
        out_.push_back('"');
        Prose(out_).hex(value);
        out_.push_back('"');
    }
    void text(const char* key, BytesView value) {
        begin(key);
        append_json_text(value, out_);
    }

private:
    void begin(const char* key) {
        if (!is_first_) out_.push_back(',');
        is_first_ = false;
        if (key == nullptr) return;  // of an array
        append_json_text(key, out_);
        out_.push_back(':');
    }

    Bytes& out_;
    bool is_first_ = true;
};

static Metric gauge(const char* name, std::uint64_t value, const char* help) {
    return Metric{name, help, Metric::Kind::gauge, value};
}
static Metric counter(const char* name, std::uint64_t value, const char* help) {
    return Metric{name, help, Metric::Kind::counter, value};
}

static std::uint64_t count_bits(std::uint64_t bits) {
    std::uint64_t count = 0;
    for (; bits != 0; bits &= bits - 1) count += 1;
    return count;
}

}  // namespace detail

// What the log has been told: a line comes where something differs from it.
struct Replica::Logged {
    struct Flood {
        std::uint64_t count = 0;
        Time at;
    };
    Flood floods[8];
    std::uint64_t snapshots_taken = 0;
    std::uint64_t snapshots_given_up = 0;
    std::uint64_t admissions = 0;
    std::uint64_t refusals = 0;
    std::uint64_t in_step = 0;    // bits of voters; of a leader's
    std::size_t observers = 0;
    std::uint64_t sum = 0;        // of what is counted
    Time look_at;                 // at all, the next time
    bool serves = false;
    bool is_admitted = false;
    bool is_full = false;
    bool is_damage_told = false;
    bool is_trying = false;       // leads, and is not established
};

Completion& Completion::operator=(Completion&& other) noexcept {
    const Kind kind = other.kind_;
    other.kind_ = Kind::none, kind_ = kind;
    callback_ = std::move(other.callback_);
    return *this;
}

Found::Found() = default;
Found::Found(Found&& other) noexcept = default;
Found& Found::operator=(Found&& other) noexcept = default;
Found::~Found() = default;

const char* name(SessionState state) {
    switch (state) {
        case SessionState::connected: return "CONNECTED";
        case SessionState::suspended: return "SUSPENDED";
        case SessionState::expired: return "EXPIRED";
        case SessionState::closed: return "CLOSED";
        case SessionState::moved: return "MOVED";
    }
    return "unknown";
}

COORD_RARE
Replica::Replica(const ReplicaOptions& options, Storage& storage, Transport& transport,
                 ReplicaObserver* observer)
    : options_(detail::with_some_id(options)),
      refused_(detail::judge_options(options, transport)),
      transport_(transport), observer_(observer),
      voters_(refused_ == nullptr ? options.voters : std::vector<PeerId>{options_.id}),
      rng_(mix64(options.entropy, options.id.value)), nonce_(rng_.next()),
      message_bytes_max_(message_bytes_max(options, transport)), log_(storage),
      machine_(new Machine(options.limits, rng_.next())), watches_(*this),
      history_(new detail::History(options.change_bytes_kept, counters_.calls,
                                   [this](SessionId id, BytesView acl) {
                                       return machine_->may(id, acl, permission::read);
                                   })),
      election_(options_.id, voters_, options.timing),
      leader_(options_.id, voters_, options.timing, log_, options_.limits,
              message_bytes_max_),
      learner_(options_.id, options.timing, log_, rng_.next() >> 1),
      outbox_(options_.id, options.ensemble, nonce_),
      answer_bytes_max_(answer_bytes_max(options.limits)),
      logged_(observer != nullptr ? new Logged() : nullptr), snapshot_check_(options.limits) {
    open();
}

COORD_RARE
Replica::Replica(const ReplicaOptions& options, Storage& storage)
    : Replica(options, storage, detail::no_transport(), nullptr) {}

// What callbacks hold may still call something as it is destroyed: it is told nothing any more.
COORD_RARE
Replica::~Replica() {
    COORD_ASSERT(!in_poll_);
    role_ = Role::failed;
    is_ending_ = true;
    history_ = {};
    const detail::Ring<Ready> ready = std::move(ready_);
    const detail::Ring<Opening> openings = std::move(openings_);
    const detail::Agenda<Timer> timers = std::move(timers_);
    for (const auto& entry : sessions_) watches_.remove_session(entry.first);
    for (const auto& entry : idle_) watches_.remove_session(entry.first);
    COORD_ASSERT(watches_.count() == 0);  // they end with their sessions
    sessions_.clear(), idle_.clear();
}

void Replica::open() {
    if (refused_ != nullptr) return fail(refused_);
    const StorageOwner owner{options_.ensemble, rng_.next()};
    Errc opened = log_.open(owner);
    const char* reason = log_.reason();
    if (opened == Errc::ok) opened = load_snapshot();
    if (opened == Errc::corrupt && *reason == 0) reason = "the snapshot is damaged";
    if (opened == Errc::corrupt && !is_alone()) {
        opened = log_.start_over(rng_.next());  // the others have what it cannot read
        if (opened == Errc::ok) damage_ = reason;
    }
    if (opened != Errc::ok) return fail(reason);
    // A standalone program may give no entropy: then what it wrote before keeps its nonces apart.
    // A life that has promised or opened anything has appended to it.
    rng_ = Rng(mix64(rng_.next(), mix64(log_.last().zxid.value, log_.appended())));
    nonce_ = rng_.next();
    outbox_ = Outbox(options_.id, options_.ensemble, nonce_);
    if (!options_.ensemble_keys.empty()) {
        seals_ = detail::Owned<Seals>(new Seals(options_.id, options_.ensemble, nonce_, rng_.next(),
                                                options_.ensemble_keys, options_.timing.retry()));
    }
    learner_.count_attempts_from(rng_.next() >> 1);
    touch_ = rng_.next() >> 1;  // so that another life's numbers mean nothing in this one
    sync_sequence_ = rng_.next() >> 1;  // nor do answers to its syncs
    options_.may_found = options_.may_found && log_.may_found();
    learner_.set_may_found(options_.may_found);
    committed_ = machine_->applied();
    was_admitted_ = is_admitted(machine_->voters());
    record_changes();
}

// From the state on that there is now.
void Replica::record_changes() {
    history_->restart(machine_->applied());
    if (options_.change_bytes_kept > 0) machine_->record_to(history_.get());
}

Errc Replica::load_snapshot() {
    if (log_.snapshot_position().zxid == Zxid{}) return Errc::ok;
    machine_->begin_load();
    for (std::uint64_t read = 0; read < log_.snapshot_bytes(); read += detail::load_piece_bytes) {
        scratch_.clear();
        if (log_.read_snapshot(read, detail::load_piece_bytes, scratch_) != Errc::ok) break;
        machine_->load_piece(scratch_);
    }
    const Errc loaded = machine_->end_load();
    if (loaded == Errc::ok && machine_->applied() == log_.snapshot_position().zxid) return Errc::ok;
    machine_ = detail::Owned<Machine>(new Machine(options_.limits, rng_.next()));
    return Errc::corrupt;
}

// -- Identity ------------------------------------------------------------------------------------

bool Replica::is_admitted(const VoterTable& table) const {
    return table.storage_of(options_.id) == log_.storage_id() && log_.storage_id() != 0;
}

// R7. What is not applied yet may have named the own storage, too, before the table was that.
bool Replica::is_replaced(const VoterTable& table, Zxid zxid) const {
    const bool is_other = table.storage_of(options_.id) != 0 && !is_admitted(table);
    const bool is_later = !log_.admits().empty() && log_.admits().back() < zxid;
    return is_other && (was_admitted_ || (is_later && is_admitted(log_.voters_at_end(*machine_))));
}

COORD_RARE
void Replica::fail(const char* reason) {
    if (role_ == Role::failed) return;
    role_ = Role::failed;
    reason_ = reason;
    incoming_ = {}, retired_ = {};
    leader_.stop(), learner_.stop();
    tell_role(PeerId{});
    for (; !openings_.empty(); openings_.pop()) {
        refuse(std::move(openings_.front().done), Errc::replica_failed);
    }
    for (auto [id, session] : sessions_) {
        requests_waiting_ -= session.pending.size();
        for (; !session.pending.empty(); session.pending.pop()) {
            Pending& pending = session.pending.front();
            end_write(id, session, pending, UINT64_MAX, Errc::replica_failed);
        }
        session.sent = 0;
    }
    history_->end_all(Errc::replica_failed);
}

// A change that cannot wait for space, as a proposal can, is the end where there is none.
void Replica::fail(Errc error) {
    COORD_ASSERT(error != Errc::ok);
    fail(error == Errc::storage_full ? "the storage is full" : "the storage failed");
}

// -- Polling -------------------------------------------------------------------------------------

void Replica::receive(PeerId from, BytesView bytes) {
    counters_.calls += 1;
    if (inbox_.size() + bytes.size() > inbox_bytes_max) {
        counters_.dropped_overflow += 1;
        return;
    }
    Writer writer(inbox_);
    writer.u32(from.value);
    writer.bytes(bytes);
}

void Replica::poll(Time now, std::int64_t wall_ms) {
    if (in_poll_) return;
    in_poll_ = true;
    counters_.polls += 1;
    const Duration gap = started_ ? (std::max)(now - now_, Duration{}) : Duration{};
    poll_gap_longest_ = (std::max)(poll_gap_longest_, gap);
    if (gap > options_.timing.silence / 2) counters_.polls_late += 1;
    now_ = started_ ? (std::max)(now_, now) : now;
    if (!started_) started_at_ = role_since_ = now_;
    wall_ms_ = wall_ms != 0 ? wall_ms : now_.ns / 1000000;
    if (role_ != Role::failed) {
        if (!started_) {
            // Now the time is known.
            for (std::size_t i = 0; i < openings_.size(); i++) openings_[i].asked_at = now_;
            look("it has just started");
        }
        started_ = true;
        log_.set_time(now_);
        take_inbox();
        work_on_snapshot();
        if (retired_ && retired_->release(detail::nodes_freed_per_poll)) retired_ = {};
        machine_->give_back(detail::nodes_freed_per_poll);
        work_left_ = detail::work_per_poll;
        for (int i = 0; i < detail::steps_per_poll_max && step(); i++) {}
        settle_local_sessions();
        tell_states();
    }
    if (logged_) log_news();
    if (role_ == Role::failed) inbox_.clear();
    tell_subscribers();
    run_timers();
    run_callbacks();
    send_all();
    in_poll_ = false;
#ifdef COORD_AUDIT
    audit();
#endif
}

Time Replica::next_deadline() const {
    const Time at_once = now_;
    if (is_ending_) return never;  // what callbacks held asks
    if (!ready_.empty() || history_->has_work()) return at_once;
    if (!settling_.empty() && role_ != Role::failed) return at_once;
    Time deadline = timers_.empty() ? never : timers_.front().at;
    if (role_ == Role::failed) return deadline;
    const bool unsent = !unsent_.empty() && can_send_requests();
    if (!started_ || !inbox_.empty() || unsent || log_.is_dirty()) return at_once;
    if (applies_later_ || reads_later_) return at_once;
    if (role_ == Role::looking) deadline = (std::min)(deadline, election_.next_deadline());
    if (role_ == Role::leading) deadline = (std::min)(deadline, leader_.next_deadline(now_));
    if (is_learner()) deadline = (std::min)(deadline, learner_.next_deadline());
    const bool repeats = !sessions_.empty() || !openings_.empty();
    if (repeats && can_send_requests()) deadline = (std::min)(deadline, repeat_at_);
    const bool installs = is_learner() && learner_.has_snapshot();
    if (snapshot_phase_ != SnapshotPhase::none || is_snapshot_due() || retired_ || installs) {
        deadline = (std::min)(deadline, now_ + detail::snapshot_slice_gap);
    }
    return (std::max)(deadline, at_once);
}

void Replica::take_inbox() {
    inbox_read_.swap(inbox_);
    Reader in(inbox_read_);
    while (in.left() > 0 && role_ != Role::failed) {
        const PeerId from{in.u32()};
        BytesView bytes = in.bytes(inbox_bytes_max);
        COORD_ASSERT(in.ok());
        Message message;
        counters_.messages_received += 1;
        if (seals_ && !unseal(from, bytes)) continue;
        if (decode_message(bytes, message) != Errc::ok) {
            counters_.dropped_corrupt += 1;
        } else if (message.ensemble != options_.ensemble || message.to != options_.id ||
                   message.from != from || from == options_.id || from == PeerId{}) {
            counters_.dropped_foreign += 1;
        } else {
            dispatch(message);
        }
    }
    inbox_read_.clear();
}

void Replica::dispatch(const Message& message) {
    bool taken = true;
    if (message.type == MessageType::refused) {
        if (message.confirmed == nonce_) return fail(text(static_cast<Refusal>(message.phase)));
        counters_.dropped_stale += 1;
        return;
    }
    if (message.type == MessageType::notification) {
        return answer_notification(message);
    }
    if (role_ == Role::looking && message.type == MessageType::follower_info) {
        election_.poll(now_, outbox_);  // the sender has seen us win: perhaps so do we by now
        drive_roles();
    }
    if (role_ == Role::leading) {
        taken = leader_.receive(now_, message, outbox_);
    } else if (is_learner()) {
        const std::uint64_t corrupt = learner_.entries_corrupt();
        taken = learner_.receive(now_, message, outbox_);
        counters_.dropped_corrupt += learner_.entries_corrupt() - corrupt;
        load_chunk();
        if (learner_.has_snapshot()) install_snapshot();
        if (learner_.error() != Errc::ok) fail(learner_.error());
    } else {
        taken = false;
    }
    if (!taken) counters_.dropped_stale += 1;
}

// Who observes is answered where there is somebody to follow: a leader that is established.
void Replica::answer_notification(const Message& message) {
    const bool asks = message.phase == static_cast<std::uint8_t>(Role::looking);
    const bool is_voters = voters_.contains(message.from);
    if (role_ == Role::looking) {
        election_.on_notification(now_, message);
    } else if (asks && is_learner() && message.from == learner_.leader() &&
               election_.is_news(message)) {
        look("the leader has given up");
        election_.on_notification(now_, message);
    } else if (asks && (is_voters || role_ != Role::leading || leader_.is_established())) {
        const PeerId leader = role_ == Role::leading ? options_.id : learner_.leader();
        election_.answer(message.from, role_, leader, outbox_);
    }
}

void Replica::forget(PeerId peer) {
    counters_.calls += 1;
    election_.forget(peer);
    if (role_ == Role::leading) leader_.forget(peer);
    if (is_learner() && learner_.leader() == peer && started_) {
        look("the leader is gone");
    }
}

// One round of the order that R1 names. RETURNS true when another would find something to do.
bool Replica::step() {
    const Role before = role_;
    drive_roles();
    if (role_ == Role::looking) election_.poll(now_, outbox_);
    if (role_ == Role::leading) lead_step();
    if (is_learner()) follow_step();
    send_all();  // BEFORE the flush: the disk and the peers work side by side
    if (role_ != Role::failed) flush();
    if (role_ == Role::failed) return false;
    after_flush();
    send_all();
    const bool decided = role_ == Role::looking && election_.winner() != PeerId{};
    const bool unsent = !unsent_.empty() && can_send_requests();
    const bool admits = can_send_requests() && role_ == Role::leading &&
                        leader_.is_admission_due(now_);
    return role_ != before || decided || unsent || admits || log_.is_dirty();
}

void Replica::flush() {
    COORD_ASSERT(in_poll_ && role_ != Role::failed);
    const Time since = log_.waiting_since();
    if (log_.is_dirty()) counters_.flushes += 1;
    if (log_.flush() != Errc::ok) return fail("the storage failed");
    if (log_.refresh_durable() != Errc::ok) return fail("the storage failed");
    if (since == never || since == log_.waiting_since()) return;
    flush_longest_ = (std::max)(flush_longest_, now_ - since);
    if (now_ - since > options_.timing.silence / 2) counters_.flushes_slow += 1;
}

void Replica::drive_roles() {
    if (role_ == Role::leading && leader_.resignation() != nullptr) {
        if (leader_.lacks_space()) step_aside();
        look(leader_.resignation());
    } else if (is_learner() && learner_.departure() != nullptr) {
        look(learner_.departure());
    } else if (role_ == Role::looking && election_.winner() == options_.id) {
        lead();
    } else if (role_ == Role::looking && election_.winner() != PeerId{}) {
        follow(election_.winner());
    }
}

// Others may have the space to lead that it has not; for longer each time, until it serves.
void Replica::step_aside() {
    aside_ = (std::min)(aside_ + 1, detail::put_offs_max);
    aside_until_ = now_ + options_.timing.retry() * (std::int64_t{1} << aside_);
}

COORD_RARE
void Replica::look(const char* reason) {
    COORD_ASSERT(role_ != Role::failed);  // R5
    leader_.stop(), learner_.stop();
    drop_incoming();
    role_ = Role::looking;
    reason_ = reason;
    leader_phase_ = Leader::Phase::idle;
    counters_.elections += 1;
    election_.start(now_, own_vote());
    tell_role(PeerId{});
}

COORD_RARE
void Replica::lead() {
    COORD_ASSERT(role_ == Role::looking && is_voter());  // E3
    role_ = Role::leading;
    leader_.know(*machine_, options_.may_found);
    leader_.start(now_);
    if (leader_.barred() != nullptr && is_alone()) return fail(leader_.barred());
    tell_role(options_.id);
}

COORD_RARE
void Replica::follow(PeerId leader) {
    COORD_ASSERT(role_ == Role::looking && leader != options_.id);
    role_ = is_voter() ? Role::following : Role::observing;
    learner_.start(now_, leader, committed_, !is_voter());
    while (touches_.size() < detail::touches_max) touches_.push();  // all of its memory, at once
    touches_.clear();
    tell_role(leader);
}

void Replica::lead_step() {
    if (leader_.can_number(*machine_)) {
        leader_.admit(now_, wall_ms_);
        leader_.look_at_sessions(wall_ms_);
        leader_.reap(now_, wall_ms_, *machine_);
        leader_.take_requests([this](const Txn& request) {
            leader_.number(wall_ms_, *machine_, request);
        });
        send_requests();
    }
    leader_.send(now_, *machine_, outbox_);
    if (leader_.pings() != pings_) touch_own_sessions();
    if (leader_.error() != Errc::ok) fail(leader_.error());
}

void Replica::follow_step() {
    if (learner_.has_snapshot()) install_snapshot();
    if (!is_learner()) return;
    learner_.send(now_, outbox_);
    if (learner_.is_serving()) send_requests();
}

void Replica::after_flush() {
    if (role_ == Role::leading) leader_.advance(now_, outbox_);
    if (is_learner()) {
        learner_.acknowledge(now_, outbox_);
        if (learner_.pong_due()) send_pong();
    }
    if (role_ == Role::leading && leader_.error() != Errc::ok) return fail(leader_.error());
    if (role_ == Role::leading && leader_.phase() != leader_phase_) {
        leader_phase_ = leader_.phase();
        if (leader_.is_established() && observer_ != nullptr) {
            observer_->on_established(options_.id, leader_.epoch(), leader_.committed());
            log_established();
        }
    }
    apply_committed();
    if (role_ == Role::failed) return;
    if (role_ == Role::leading) (void)leader_.can_number(*machine_);  // what waits need not wait on
    take_syncs();
    renew_lease();
    if (role_ == Role::leading) leader_.announce(*machine_, outbox_);
}

// Not before the founding is complete here: until then one voter less could stop the others.
bool Replica::is_serving() const {
    if (voters_.size() > 2 && machine_->voters().is_founding()) return false;
    if (role_ == Role::leading) return leader_.is_established();
    return is_learner() && learner_.is_serving();
}

// Whether whoever numbers requests has no room for what grows.
bool Replica::is_full() const {
    return role_ == Role::leading ? !log_.has_room() : learner_.leader_is_full();
}

Vote Replica::own_vote() const {
    if (!is_voter()) return Vote{0, Zxid{}, options_.id};  // E3
    const VoterTable table = log_.voters_at_end(*machine_);
    const bool stands = is_admitted(table) || !table.knows(options_.id) || table.is_founding();
    if (!stands || now_ < aside_until_) return Vote{0, Zxid{}, options_.id};  // R6
    return Vote{log_.durable_epochs().current, log_.durable_last(), options_.id};
}

void Replica::send_all() {
    outbox_.drain([this](PeerId to, BytesView bytes) {
        COORD_ASSERT(bytes.size() <= message_bytes_max_);
        deliver(to, seals_ ? seals_->seal(now_, to, bytes) : bytes);
    });
}

void Replica::deliver(PeerId to, BytesView bytes) {
    COORD_ASSERT(in_poll_ && bytes.size() <= transport_.message_bytes_max());
    if (bytes.empty()) return;  // it is not known yet which life of the peer hears: K1
    counters_.messages_sent += 1;
    counters_.bytes_sent += bytes.size();
    transport_.send(to, bytes);
}

// RETURNS whether there is a message in it, which takes its place.
bool Replica::unseal(PeerId from, BytesView& bytes) {
    BytesView answer;
    const Seals::Verdict verdict = seals_->open(now_, from, bytes, bytes, answer);
    deliver(from, answer);
    if (verdict == Seals::Verdict::unsealed) counters_.dropped_unsealed += 1;
    if (verdict == Seals::Verdict::replayed) counters_.dropped_replayed += 1;
    return verdict == Seals::Verdict::message;
}

std::size_t Replica::message_bytes_max(const ReplicaOptions& options, const Transport& transport) {
    const std::size_t seal = options.ensemble_keys.empty() ? 0 : Seals::overhead_bytes;
    const std::size_t most = transport.message_bytes_max();
    return (std::max)(most - (std::min)(most, seal), detail::transport_bytes_min);
}

// -- Applying ------------------------------------------------------------------------------------

// Watchers that stay may hear of each of many changes: what is committed waits for the next poll,
// and not in memory for this one's end.
void Replica::apply_committed() {
    if (role_ == Role::leading) committed_ = (std::max)(committed_, leader_.committed());
    if (is_learner()) committed_ = (std::max)(committed_, learner_.committed());
    const Zxid target = (std::min)(committed_, log_.durable_last());  // R2
    applies_later_ = false;
    if (reads_later_ && read_bytes_ < answer_bytes_max_) drain_all();
    std::uint64_t work = 0;
    while (machine_->applied() < target && role_ != Role::failed) {
        applies_later_ = ready_.size() >= detail::callbacks_max || work >= work_left_ ||
                         write_bytes_ >= answer_bytes_max_;
        if (applies_later_) break;
        const std::uint64_t before = machine_->work();
        Txn txn;
        read_entry(log_.entry_after(machine_->applied()), txn);
        COORD_ASSERT(txn.previous == machine_->applied() && txn.zxid > txn.previous);  // L1
        if (txn.zxid > target) break;  // a leader named a commit that its history has not
        applies_later_ = must_read_first(txn);
        if (applies_later_) break;
        apply(txn);
        work += machine_->work() - before + work_of(txn);
        compare_digest();
    }
    work_left_ -= (std::min)(work, work_left_);
    compare_digest();
}

// Beside its changes: what it consists of is looked at, changes or not.
std::uint64_t Replica::work_of(const Txn& txn) {
    const bool has_parts = txn.op == OpCode::multi || txn.op == OpCode::silence;
    return 1 + txn.body.size() / (has_parts ? 16 : 1024);
}

void Replica::apply(const Txn& txn) {
    COORD_ASSERT(txn.zxid <= committed_ && txn.zxid <= log_.durable_last());  // R2
    const bool ends = txn.op == OpCode::close_session || txn.op == OpCode::attach_session;
    const SessionRecord* const ending = ends ? machine_->find_session(txn.session) : nullptr;
    const std::uint64_t executed = ending == nullptr ? 0 : ending->cxid;  // R13
    const Outcome* const outcome = machine_->apply(txn, watches_);
    counters_.applied += 1, counters_.over_quota += machine_->over_quota();
    entries_since_snapshot_ += 1;
    bytes_since_snapshot_ += txn.body.size() + entry_header_bytes;
    if (role_ == Role::leading) leader_.on_applied(txn, *machine_);
    if (observer_ != nullptr) {
        observer_->on_applied(options_.id, txn, outcome, machine_->digest());
    }
    if (txn.op != OpCode::admit) return complete(txn, outcome, executed);
    if (is_replaced(machine_->voters(), txn.zxid)) return fail(detail::replaced);
    was_admitted_ = was_admitted_ || is_admitted(machine_->voters());
}

void Replica::compare_digest() {
    if (!is_learner() || machine_->applied() != learner_.digest_at()) return;
    if (machine_->applied() == Zxid{} || machine_->digest() == learner_.digest()) return;
    fail("the state differs from the leader's");
}

// -- Snapshots -----------------------------------------------------------------------------------

bool Replica::is_snapshot_due() const {
    if (entries_since_snapshot_ < options_.snapshot_every_entries &&
        bytes_since_snapshot_ < options_.snapshot_every_bytes) {
        return false;
    }
    const Zxid zxid = machine_->applied();
    return zxid > log_.snapshot_position().zxid && zxid <= log_.durable_last() && !incoming_ &&
           !is_fetch_waited_for();
}

// A learner that fetches the snapshot before, or has just done so, would have to begin once more.
// It is waited for, but not for ever.
bool Replica::is_fetch_waited_for() const {
    return role_ == Role::leading && leader_.is_fetched(now_) &&
           entries_since_snapshot_ < snapshot_patience();
}

std::uint64_t Replica::snapshot_patience() const {
    return std::uint64_t{options_.snapshot_every_entries} * 10 + 10000;
}

// A slice: what a poll does of it is bounded, however large the tree is. First it is written, then
// read again and compared with its digest; only then may it take the place of an older one.
void Replica::work_on_snapshot() {
    if (role_ == Role::failed) return;
    if (snapshot_phase_ == SnapshotPhase::none) {
        if (!is_snapshot_due()) return;
        snapshot_may_wait_ = role_ != Role::leading || !leader_.is_fetched(now_);
        snapshot_position_ = LogPosition{machine_->applied(), log_.crc_at(machine_->applied())};
        entries_since_snapshot_ = 0, bytes_since_snapshot_ = 0;
        snapshot_phase_ = SnapshotPhase::writing;
        snapshot_written_ = snapshot_checked_ = 0;
        machine_->begin_save();
        const Errc error = log_.begin_snapshot(snapshot_position_);
        if (error != Errc::ok) return give_up_snapshot(error);
    }
    std::size_t done = 0;
    while (snapshot_phase_ == SnapshotPhase::writing && done < detail::snapshot_slice_bytes) {
        done += write_snapshot_slice();
    }
    while (snapshot_phase_ == SnapshotPhase::checking && done < detail::snapshot_slice_bytes) {
        done += check_snapshot_slice();
    }
    if (snapshot_phase_ == SnapshotPhase::ending) end_snapshot();
}

std::size_t Replica::write_snapshot_slice() {
    COORD_ASSERT(machine_->is_saving());
    scratch_.clear();
    if (machine_->save_slice(detail::snapshot_slice_bytes, scratch_)) {
        snapshot_phase_ = SnapshotPhase::checking;
        snapshot_check_.restart();
    }
    snapshot_written_ += scratch_.size();
    const Errc error = log_.write_snapshot(scratch_);
    if (error != Errc::ok) give_up_snapshot(error);
    const bool is_last = snapshot_phase_ != SnapshotPhase::writing;
    return is_last ? scratch_.size() : detail::snapshot_slice_bytes;  // a slice is one poll's work
}

std::size_t Replica::check_snapshot_slice() {
    scratch_.clear();
    const Errc error = log_.read_begun(snapshot_checked_, detail::snapshot_slice_bytes, scratch_);
    if (error == Errc::throttled_op) return detail::snapshot_slice_bytes;  // enough for this poll
    if (error != Errc::ok) return give_up_snapshot(error), 0;
    snapshot_check_.feed(scratch_);
    snapshot_checked_ += scratch_.size();
    const bool is_sound = snapshot_check_.is_sound(snapshot_position_.zxid);
    if (snapshot_checked_ < snapshot_written_ && !scratch_.empty()) return scratch_.size();
    if (!is_sound) return give_up_snapshot(Errc::corrupt), 0;
    snapshot_phase_ = SnapshotPhase::ending;
    return scratch_.size();
}

void Replica::end_snapshot() {
    if (snapshot_may_wait_ && is_fetch_waited_for()) return;  // it has begun to since
    std::size_t kept = options_.log_entries_kept;
    if (role_ == Role::leading) {
        const std::uint64_t wanted = log_.count_after(leader_.needed(now_));
        kept = (std::max)(kept,
                          static_cast<std::size_t>((std::min)(snapshot_patience(), wanted)));
    }
    const Errc error = log_.end_snapshot(kept);
    if (error != Errc::ok) return give_up_snapshot(error);
    snapshot_phase_ = SnapshotPhase::none;
    counters_.snapshots_taken += 1;
}

// There will be another one. The log, which is needed longer now, is what matters.
void Replica::give_up_snapshot(Errc error) {
    COORD_ASSERT(snapshot_phase_ != SnapshotPhase::none);
    machine_->stop_saving();
    snapshot_phase_ = SnapshotPhase::none;
    counters_.snapshots_given_up += 1;
    if (error == Errc::storage_failed) return fail("the storage failed");
    log_.give_up_snapshot();
}

// What arrives of a snapshot is loaded and written at once. With the last of it comes what needs
// all nodes: Tree::end_load. One that is begun anew, or given up, has nothing at first.
void Replica::load_chunk() {
    const BytesView chunk = learner_.snapshot();
    if (learner_.phase() != Learner::Phase::fetching || learner_.fetched() == 0) {
        return drop_incoming();
    }
    if (chunk.empty()) return;
    Errc error = Errc::ok;
    if (!incoming_) {
        if (snapshot_phase_ != SnapshotPhase::none) give_up_snapshot(Errc::ok);  // of what will go
        incoming_ = detail::Owned<Machine>(new Machine(options_.limits, rng_.next()));
        incoming_->begin_load();
        incoming_bytes_ = 0;
        error = log_.begin_install(learner_.snapshot_position());
    }
    incoming_bytes_ += chunk.size();
    COORD_ASSERT(incoming_bytes_ == learner_.fetched());
    const bool is_sound = incoming_->load_piece(chunk);
    if (error == Errc::ok) error = log_.write_snapshot(chunk);
    learner_.take_chunk();
    if (error == Errc::storage_full) return put_off_snapshot();
    if (error != Errc::ok) return fail(error);
    if (!is_sound) learner_.refuse_snapshot("the leader's snapshot is damaged");
}

// No space: what was there stays as it is, and what has come goes.
void Replica::put_off_snapshot() {
    drop_incoming();
    learner_.put_off_snapshot(now_);
    counters_.snapshots_given_up += 1;
}

// What has come of a leader's snapshot is worth nothing, in memory and in the storage.
void Replica::drop_incoming() {
    if (!incoming_) return;
    retire_machine(std::move(incoming_));
    log_.give_up_snapshot();
}

// A state of many nodes is freed in slices.
void Replica::retire_machine(detail::Owned<Machine> machine) {
    retired_ = std::move(machine);  // one that was not gone yet goes at once
}

COORD_RARE
void Replica::install_snapshot() {
    COORD_ASSERT(is_learner() && learner_.has_snapshot());
    const LogPosition position = learner_.snapshot_position();
    COORD_ASSERT(incoming_ && incoming_bytes_ == learner_.fetched());
    if (reads_later_ && read_bytes_ < answer_bytes_max_) drain_all();
    if (must_read_before_jump()) return;
    // Whether there was space for all of it a storage on a thread knows when it is read.
    scratch_.clear();
    const Errc read = log_.read_begun(incoming_bytes_ - 1, 1, scratch_);
    if (read == Errc::throttled_op) return;  // in the next poll
    if (read == Errc::storage_full) return put_off_snapshot();
    if (read != Errc::ok) return fail(read);
    // Where it is refused, what has come goes with the role.
    if (incoming_->end_load() != Errc::ok || incoming_->applied() != position.zxid) {
        return learner_.refuse_snapshot("the leader's snapshot is damaged");
    }
    if (position.zxid <= machine_->applied()) {
        return learner_.refuse_snapshot("the leader's snapshot is older than this state");
    }
    if (is_replaced(incoming_->voters(), position.zxid)) {  // before it is installed
        return fail(detail::replaced);
    }
    const Errc installed = log_.end_install();
    if (installed == Errc::storage_full) return put_off_snapshot();
    if (installed != Errc::ok) return fail(installed);
    learner_.installed();
    detail::Owned<Machine> old = std::move(machine_);
    machine_ = std::move(incoming_);
    COORD_ASSERT(snapshot_phase_ == SnapshotPhase::none);  // since the first chunk
    entries_since_snapshot_ = 0, bytes_since_snapshot_ = 0;
    counters_.snapshots_installed += 1;
    if (observer_ != nullptr) {
        observer_->on_installed(options_.id, position.zxid, machine_->digest());
        Bytes line;
        detail::Prose(line).text("has installed the leader's snapshot of ").zxid(position.zxid);
        log_line(LogCode::snapshot_installed, LogLevel::info, line);
    }
    was_admitted_ = was_admitted_ || is_admitted(machine_->voters());
    watches_.catch_up(old->tree(), machine_->tree(), position.zxid);
    record_changes();
    catch_up_sessions();
    retire_machine(std::move(old));
}

// -- Requests ------------------------------------------------------------------------------------

std::uint32_t Replica::clamp_timeout_ms(Duration timeout) const {
    const Duration clamped = (std::min)((std::max)(timeout, options_.session_timeout_min),
                                        options_.session_timeout_max);
    const std::int64_t ms = clamped.ns / 1000000;
    return static_cast<std::uint32_t>((std::min)((std::max)(ms, std::int64_t{1}),
                                                 std::int64_t{UINT32_MAX}));
}

std::size_t Replica::request_bytes_max() const {
    const std::size_t overhead = message_overhead_bytes + entry_header_bytes;
    return message_bytes_max_ - overhead;
}

Replica::Ready& Replica::push_ready() {
    Ready& ready = ready_.push();
    if (ready.done.kind() != Completion::Kind::none) ready.done = Completion{};
    ready.error = Errc::ok;
    ready.text.clear(), ready.names.clear(), ready.nodes.clear();
    ready.parts.clear(), ready.found.clear();
    ready.more = ready.is_null = false, ready.root_bytes = 0;
    ready.read_bytes = ready.write_bytes = 0;
    if (ready.watcher) ready.watcher = nullptr;
    if (ready.on_state) ready.on_state = nullptr;
    if (ready.call) ready.call = nullptr;
    ready.event = EventType::none;
    ready.is_brief = false;
    return ready;
}

void Replica::refuse(Completion&& done, Errc error) {
    if (is_ending_) return;
    Ready& ready = push_ready();
    ready.done = std::move(done);
    ready.error = error;
    ready.zxid = machine_->applied();
    ready.is_brief = true;
}

COORD_RARE
void Replica::open_session(const SessionOptions& options, OnOpened done) {
    counters_.calls += 1, counters_.requests += 1;
    if (role_ == Role::failed) return refuse(std::move(done), Errc::replica_failed);
    if (options.is_local) return open_local(options, std::move(done));
    if (openings_.size() + sessions_.size() - busy_ >= options_.limits.sessions_max) {
        counters_.requests_refused += 1;
        return refuse(std::move(done), Errc::too_many);
    }
    Opening opening;
    opening.nonce = rng_.next();
    opening.timeout_ms = clamp_timeout_ms(options.timeout);
    opening.password = options.password;
    if (is_same(opening.password, {})) opening.password = {rng_.next(), rng_.next()};
    opening.done = std::move(done);
    opening.asked_at = now_;
    openings_.push() = std::move(opening);
    if (unsent_.empty()) unsent_.push_back(SessionId{});  // there is something to send
}

// R14. By memory alone. Its id goes by what the log has, too: after a start with the same entropy
// it is another one.
COORD_RARE
void Replica::open_local(const SessionOptions& options, Completion&& done) {
    const std::uint64_t drawn = mix64(rng_.next(), log_.last().zxid.value);
    const SessionId id{drawn | detail::local_id_bit};
    const bool is_taken = find_here(id) != nullptr || machine_->find_session(id) != nullptr;
    if (is_taken || idle_.size() + busy_ >= options_.limits.local_sessions_max) {
        counters_.requests_refused += 1;
        return refuse(std::move(done), Errc::too_many);
    }
    HeldSession& session = idle_.at_or_new(id);
    session.is_local = true;
    session.timeout_ms = clamp_timeout_ms(options.timeout);
    session.password = options.password;
    if (is_same(session.password, {})) session.password = {rng_.next(), rng_.next()};
    session.state = is_serving() ? SessionState::connected : SessionState::suspended;
    Ready& ready = push_ready();
    ready.done = std::move(done);
    ready.session = id;
}

// The first of its writes waits: it needs a record that every replica has, with what is executed.
COORD_RARE
void Replica::upgrade(SessionId id, HeldSession& session) {
    COORD_ASSERT(session.is_local && !session.is_upgraded);  // R14
    session.is_upgraded = true;
    Opening& opening = openings_.push();
    opening = Opening{};
    opening.is_upgrade = true, opening.nonce = id.value;
    opening.timeout_ms = session.timeout_ms, opening.password = session.password;
    opening.asked_at = now_;
    if (unsent_.empty()) unsent_.push_back(SessionId{});
}

COORD_RARE
void Replica::end_upgrade(std::size_t place, Errc error) {
    const SessionId id{openings_[place].nonce};
    const Time asked_at = openings_[place].asked_at;
    openings_.erase(place);
    const auto found = sessions_.find(id);
    COORD_ASSERT(found != sessions_.end() && found->second.is_upgraded);  // R14: its writes wait
    if (error != Errc::ok && error != Errc::too_many) {
        const bool has_moved = error == Errc::session_moved;
        return end_session(id, has_moved ? SessionState::moved : SessionState::expired, 0);
    }
    HeldSession& session = found->second;
    session.is_upgraded = false;
    if (error == Errc::ok) {
        const SessionRecord* const record = machine_->find_session(id);
        COORD_ASSERT(record != nullptr && record->nonce == id.value);  // M17
        session.is_local = session.is_busy = false;
        busy_ -= 1;
        session.next_cxid = record->cxid + 1, session.confirmed = record->cxid;
        session.opened_at = asked_at, session.attached_at = now_;
        counters_.sessions_upgraded += 1;
    }
    list_unsent(id, session);  // what stands behind its writes, too
    for (std::size_t i = 0; i < session.pending.size(); i++) {
        Pending& pending = session.pending[i];
        if (pending.error != Errc::ok || !detail::is_write(pending.kind)) continue;
        if (error == Errc::ok) {
            pending.cxid = session.next_cxid++;
        } else if (pending.kind != Request::Kind::close) {
            pending.error = error;
            counters_.requests_refused += 1;
        }
    }
    drain(id, session);
}

// The loops over sessions see those local ones alone that have something pending.
void Replica::make_busy(SessionId id, HeldSession& session) {
    session.is_busy = true;
    busy_ += 1;
    idle_.hand_over(idle_.find(id), sessions_);
}

// Those whose requests have been answered, but for a close.
void Replica::settle_local_sessions() {
    for (std::size_t i = 0; i < settling_.size(); i++) {
        const SessionId id = settling_[i];
        const auto found = sessions_.find(id);
        if (found == sessions_.end() || !found->second.is_busy) continue;
        HeldSession& session = found->second;
        if (session.pending.empty()) {
            session.is_busy = false;
            busy_ -= 1;
            sessions_.hand_over(found, idle_);
        } else if (session.pending.front().kind == Request::Kind::close) {
            COORD_ASSERT(!session.is_upgraded);  // R14: nothing of it is in the log
            end_session(id, SessionState::closed, 0);
        }
    }
    settling_.clear();
}

COORD_RARE
void Replica::attach_session(SessionId id, const SessionPassword& password, OnOpened done) {
    counters_.calls += 1, counters_.requests += 1;
    if (role_ == Role::failed) return refuse(std::move(done), Errc::replica_failed);
    const bool is_nobody = id == SessionId{};
    // The ensemble has no more sessions after it: only what waits here is bounded.
    if (is_nobody || openings_.size() >= options_.limits.sessions_max) {
        counters_.requests_refused += 1;
        return refuse(std::move(done), is_nobody ? Errc::session_expired : Errc::too_many);
    }
    Opening opening;
    opening.nonce = rng_.next();
    opening.session = id, opening.password = password;
    opening.sync = ++sync_sequence_;
    opening.done = std::move(done);
    opening.asked_at = now_;
    openings_.push() = std::move(opening);
    if (unsent_.empty()) unsent_.push_back(SessionId{});
}

// What frees something has room left when everything else is refused.
std::size_t Replica::requests_max(const Request& request) const {
    const std::size_t most = options_.limits.requests_per_session_max;
    if (request.kind == Request::Kind::close) return SIZE_MAX;  // there is one
    bool frees = request.kind == Request::Kind::remove;
    if (request.kind == Request::Kind::multi && request.parts.size() == request.guards + 1) {
        const OpCode last = request.parts.back().code;  // what it was before it was guarded
        frees = last == OpCode::remove || last == OpCode::remove_all;
    }
    return frees ? most * 2 - 1 : most;
}

void Replica::submit(SessionId id, Request&& request) {
    counters_.calls += 1, counters_.requests += 1;
    HeldSession* const here = find_here(id);
    const bool is_here = here != nullptr && is_held(*here, request.holding);
    Errc error = Errc::ok;
    if (role_ == Role::failed) {
        error = Errc::replica_failed;
    } else if (!is_here && machine_->find_session(id) != nullptr) {
        error = Errc::session_moved;  // R10
    } else if (!is_here || here->closing) {
        error = Errc::session_expired;
    } else if (here->pending.size() >= requests_max(request)) {
        error = Errc::too_many;
    }
    if (error != Errc::ok) {
        counters_.requests_refused += 1;
        return refuse(std::move(request.done), error);
    }
    HeldSession& session = *here;
    Pending& pending = session.pending.push();
    requests_waiting_ += 1;
    pending.kind = request.kind, pending.cxid = 0;
    pending.page.after.clear(), pending.page.prefix.clear(), pending.page.limit = SIZE_MAX;
    if (pending.watcher) pending.watcher = nullptr;
    pending.least = Zxid{};
    pending.root_bytes = request.root_bytes, pending.guards = request.guards;
    pending.error = prepare(request, pending);
    pending.done = std::move(request.done);
    const bool is_read = detail::is_read(request.kind);
    pending.awaits_sync =
        request.kind == Request::Kind::sync || (is_read && request.least == newest);
    if (is_read && !pending.awaits_sync) pending.least = request.least;
    pending.since = request.since, pending.watched = request.watched;
    if (request.kind == Request::Kind::watch_since) {
        pending.least = (std::max)(pending.least, request.since);
    }
    if (pending.error != Errc::ok) {
        counters_.requests_refused += 1;
    } else if (detail::is_write(request.kind)) {
        session.closing = request.kind == Request::Kind::close;
        if (session.is_local) {
            if (!session.is_upgraded && !session.closing) upgrade(id, session);
        } else {
            pending.cxid = session.next_cxid++;
            list_unsent(id, session);
        }
    } else if (pending.awaits_sync) {
        pending.cxid = ++sync_sequence_;
        list_unsent(id, session);
    }
    if (session.pending.size() == 1 || session.closing) drain(id, session);
    if (!session.is_local || session.pending.empty()) return;
    if (!session.is_busy) make_busy(id, session);
    if (session.closing) settling_.push_back(id);
}

// Judges a request before anything is sent, and writes down what it will need.
Errc Replica::prepare(Request& request, Pending& pending) {
    using Kind = Request::Kind;
    if (request.kind == Kind::sync) return Errc::ok;
    Errc error = Errc::ok;
    if (request.kind == Kind::whoami) return pending.body.clear(), Errc::ok;
    if (request.kind == Kind::add_auth) return prepare_auth(request, pending);
    if (request.kind == Kind::read) {
        const bool is_one = request.queries.size() == 1;
        if (request.queries.size() > options_.limits.multi_parts_max) return Errc::too_many;
        if (!is_one && request.done.kind() == Completion::Kind::found) return Errc::bad_arguments;
        encode_queries(request.queries, pending.body);
        return Errc::ok;
    }
    if (request.kind == Kind::multi) {
        if (request.parts.size() > options_.limits.multi_parts_max) return Errc::too_many;
        if (request.guards > request.parts.size()) return Errc::bad_arguments;
        for (const Op& part : request.parts) {
            if (error == Errc::ok) error = judge_path(part.code, part.path, part.mode);
            if (error == Errc::ok) error = judge_schemes(part.acl);
        }
    } else if (request.kind != Kind::close) {
        const OpCode op = request.kind == Kind::create ? OpCode::create : OpCode::check;
        error = judge_path(op, request.path, request.mode);
        if (error == Errc::ok) error = judge_schemes(request.acl);
    }
    if (error != Errc::ok) return error;
    if (detail::is_write(request.kind)) {
        if (!detail::has_room(request, request_bytes_max())) return Errc::too_large;
        pending.op = encode_write(request, pending.body);
        if (pending.body.size() > request_bytes_max()) return Errc::too_large;
        if (takes_space(pending.op, pending.body) && is_full()) return Errc::storage_full;
        return judge_request(pending.op, pending.body, options_.limits);
    }
    pending.body.assign(request.path.data(), request.path.size());
    const bool is_added = request.kind == Kind::add_watch;
    const WatcherType least = is_added ? WatcherType::persistent : WatcherType::children;
    const bool is_since = request.kind == Kind::watch_since;
    if ((is_added || is_since) && !request.watcher) return Errc::bad_arguments;
    if (is_since && (request.watched > Watched::persistent || request.since == newest)) {
        return Errc::bad_arguments;
    }
    if (request.watcher_type < least || request.watcher_type > WatcherType::persistent_recursive) {
        return Errc::bad_arguments;
    }
    pending.watcher_type = request.watcher_type;
    pending.watcher = std::move(request.watcher);
    if (request.kind != Kind::children) return Errc::ok;
    error = judge_query(Query::children(request.path, request.page));
    pending.page = std::move(request.page);
    return error;
}

COORD_RARE
bool Replica::has_scheme(BytesView scheme) const {
    for (const Bytes& each : options_.schemes) {
        if (scheme == each) return detail::is_own_scheme(scheme);
    }
    return false;
}

// That a scheme is one that there is only this replica can tell: the others may have other options.
// So what the rest of it is worth all of them tell alike, and this is told before.
COORD_RARE
Errc Replica::judge_schemes(const Acl& acl) const {
    if (acl.empty()) return Errc::ok;
    Reader in(acl.bytes());
    Acl::Entry entry;
    while (detail::read_entry(in, entry)) {
        if (detail::is_own_scheme(entry.scheme) && !has_scheme(entry.scheme)) {
            return Errc::invalid_acl;
        }
    }
    return Errc::ok;
}

// M10. From the credential to identities: what a password is worth is known here, and goes no
// further than this call.
COORD_RARE
Errc Replica::prepare_auth(const Request& request, Pending& pending) const {
    const BytesView scheme = request.path, credential = request.data;
    Bytes id;
    pending.op = OpCode::auth;
    pending.body.clear();
    if (credential.size() > options_.limits.data_bytes_max) return Errc::too_large;
    if (scheme == "digest") {
        id = digest_id(credential);
        const bool is_super = !options_.super_digest.empty() && id == options_.super_digest;
        if (is_super) pending.body.assign(super_user);
    } else if (scheme == "ip") {
        id.assign(credential);
    } else {
        const bool is_judged = has_scheme(scheme) && options_.judge_credential != nullptr;
        if (!is_judged || !options_.judge_credential(scheme, credential, id)) {
            return Errc::auth_failed;
        }
    }
    detail::write_entry({0, scheme, id}, pending.body);
    const bool has_room = pending.body.size() <= request_bytes_max();
    return has_room ? judge_request(pending.op, pending.body, options_.limits) : Errc::too_large;
}

namespace detail {

// Whether a number is added at the end of its path.
static bool is_numbered(OpCode op, CreateMode mode) {
    return (op == OpCode::create || op == OpCode::create_with_parents) && is_sequential(mode);
}

// Of one that something is added to at its end the end may be '/'.
static bool is_sound_path(BytesView path, bool is_begun) {
    return is_begun ? is_valid_path(Bytes(path) + '1') : is_valid_path(path);
}

}  // namespace detail

// Asked when its turn has come: those before it may set watchers, and remove them.
bool Replica::has_too_many_watches(SessionId id) const {
    return watches_.count(id) >= options_.limits.watches_per_session_max;
}

// What ZooKeeper's clients look at before they send.
Errc Replica::judge_path(OpCode op, BytesView path, CreateMode mode) const {
    if (path.size() > options_.limits.path_bytes_max) return Errc::too_large;
    const bool is_numbered = detail::is_numbered(op, mode);
    return detail::is_sound_path(path, is_numbered) ? Errc::ok : Errc::bad_arguments;
}

namespace detail {

static char* put_bytes(char* at, BytesView bytes) {
    store_big32(at, static_cast<std::uint32_t>(bytes.size()));
    if (!bytes.empty()) std::memcpy(at + 4, bytes.data(), bytes.size());
    return at + 4 + bytes.size();
}

// The body of a request of that kind by itself, or of a part of a multi: the path, the data if it
// has any, and a mode or a version; an ACL, a ttl. Into room for all of it, quicker than a piece a
// time.
template <class Asked>  // an Op, or a Request
static void encode_part(OpCode code, const Asked& part, std::size_t start, Bytes& body) {
    const bool is_acl = code == OpCode::set_acl;
    const bool has_data = code == OpCode::create || code == OpCode::set || is_acl;
    const BytesView data = is_acl ? BytesView(part.acl.bytes()) : part.data;
    body.resize(start + 4 + part.path.size() + (has_data ? 4 + data.size() : 0) + 4);
    char* at = put_bytes(&body[start], part.path);
    if (has_data && is_null(data)) {
        store_big32(at, null_length), at += 4;
    } else if (has_data) {
        at = put_bytes(at, data);
    }
    const bool is_create = code == OpCode::create;
    const bool has_acl = is_create && !part.acl.empty();
    const std::int32_t last = is_create ? static_cast<std::int32_t>(part.mode) : part.version;
    store_big32(at, static_cast<std::uint32_t>(last) | (has_acl ? acl_follows : 0));
    COORD_ASSERT(at + 4 == body.data() + body.size());
    if (has_acl) Writer(body).bytes(part.acl.bytes());
    const bool has_ttl_field = has_ttl(part.mode) || part.ttl != Duration{};
    if (is_create && has_ttl_field) Writer(body).i64(part.ttl.ns / 1000000);
}

// What a create, set or remove is by itself, and as a part.
static OpCode code_of(Request::Kind kind) {
    return kind == Request::Kind::set       ? OpCode::set
           : kind == Request::Kind::create  ? OpCode::create
           : kind == Request::Kind::set_acl ? OpCode::set_acl
                                            : OpCode::remove;
}

static Op op_of(const Request& request) {
    Op op;
    op.code = code_of(request.kind);
    op.path = request.path, op.data = request.data;
    op.mode = request.mode, op.version = request.version, op.ttl = request.ttl;
    op.acl = request.acl;
    return op;
}

// Of a part that only a multi has.
static void encode_special(const Op& part, Bytes& body) {
    Writer out(body);
    if (part.code == OpCode::check_that) {
        out.bytes(part.path), out.u8(static_cast<std::uint8_t>(part.condition));
        const bool is_data = part.condition == Condition::data;
        if (is_data) is_null(part.data) ? out.u32(null_length) : out.bytes(part.data);
        if (!is_data && part.condition != Condition::absent) out.u64(part.number);
        return;
    }
    if (part.code == OpCode::guard) return out.bytes(part.path), out.u64(part.number);
    Op plain = part;
    plain.code = part.code == OpCode::remove_all ? OpCode::remove : OpCode::create;
    if (part.code == OpCode::create_with_parents) out.u8(static_cast<std::uint8_t>(part.parents));
    if (part.code == OpCode::take_over) {
        out.u64(part.number), out.u64(part.password.high), out.u64(part.password.low);
    }
    encode_part(plain.code, plain, body.size(), body);
}

static Op op_of(OpCode code, BytesView path, BytesView data, std::uint64_t number) {
    Op op;
    op.code = code, op.path = path, op.data = data, op.number = number;
    return op;
}

static Op that(Condition condition, BytesView path, BytesView data, std::uint64_t number) {
    Op op = op_of(OpCode::check_that, path, data, number);
    op.condition = condition;
    return op;
}

}  // namespace detail

Op Op::absent(BytesView path) { return detail::that(Condition::absent, path, {}, 0); }

Op Op::has_czxid(BytesView path, Zxid czxid) {
    return detail::that(Condition::czxid, path, {}, czxid.value);
}

Op Op::has_owner(BytesView path, SessionId owner) {
    return detail::that(Condition::owner, path, {}, owner.value);
}

Op Op::has_data(BytesView path, BytesView data) {
    return detail::that(Condition::data, path, data, 0);
}

Op Op::has_children(BytesView path, std::uint64_t count) {
    return detail::that(Condition::children, path, {}, count);
}

Op Op::create_or_set(BytesView path, BytesView data, CreateMode mode, Duration ttl) {
    Op op = detail::op_of(OpCode::create_or_set, path, data, 0);
    op.mode = mode, op.ttl = ttl;
    return op;
}

Op Op::create_with_parents(BytesView path, BytesView data, CreateMode mode, CreateMode parents,
                           Duration ttl) {
    Op op = detail::op_of(OpCode::create_with_parents, path, data, 0);
    op.mode = mode, op.parents = parents, op.ttl = ttl;
    return op;
}

Op Op::take_over(BytesView path, BytesView data, SessionId earlier,
                 const SessionPassword& password) {
    Op op = detail::op_of(OpCode::take_over, path, data, earlier.value);
    op.mode = CreateMode::ephemeral, op.password = password;
    return op;
}

Op Op::remove_all(BytesView path, std::int32_t version) {
    Op op = detail::op_of(OpCode::remove_all, path, {}, 0);
    op.version = version;
    return op;
}

Op Op::guard(BytesView path, Zxid czxid) {
    return detail::op_of(OpCode::guard, path, {}, czxid.value);
}

// Its body in the place of what was there: often as much, so that nothing is filled twice. RETURNS
// what it is.
OpCode Replica::encode_write(const Request& request, Bytes& body) {
    using Kind = Request::Kind;
    COORD_ASSERT(detail::is_write(request.kind));
    if (request.kind != Kind::multi && request.kind != Kind::close) {
        const OpCode code = detail::code_of(request.kind);
        detail::encode_part(code, request, 0, body);
        return code;
    }
    body.clear();
    Writer writer(body);
    if (request.kind == Kind::close) return writer.u8(0), OpCode::close_session;
    writer.u32(static_cast<std::uint32_t>(request.parts.size()));
    for (const Op& part : request.parts) {
        writer.u8(static_cast<std::uint8_t>(part.code)), writer.u32(0);
        const std::size_t start = body.size();
        detail::is_special(part.code) ? detail::encode_special(part, body)
                                      : detail::encode_part(part.code, part, start, body);
        writer.patch_u32(start - 4, static_cast<std::uint32_t>(body.size() - start));
    }
    return OpCode::multi;
}

void Replica::list_unsent(SessionId id, HeldSession& session) {
    if (session.is_listed) return;
    session.is_listed = true;
    unsent_.push_back(id);
}

bool Replica::can_send_requests() const {
    if (role_ == Role::leading) {
        return leader_.is_numbering();
    }
    return is_learner() && learner_.is_serving();
}

void Replica::send_requests() {
    repeat_requests();
    if (unsent_.empty()) return;
    for (std::size_t i = 0; i < openings_.size(); i++) {
        Opening& opening = openings_[i];
        if (!opening.sent) send_opening(opening);
    }
    sending_.swap(unsent_);
    for (const SessionId id : sending_) {
        HeldSession* const session = find_here(id);
        if (session == nullptr) continue;
        session->is_listed = false;
        send_session(id, *session);
    }
    sending_.clear();
    flush_requests();
}

void Replica::send_opening(Opening& opening) {
    opening.sent = true;
    if (opening.session != SessionId{} && opening.cxid == 0) {
        if (opening.is_synced) return;
        if (role_ == Role::leading) leader_.request_sync(opening.sync);
        if (is_learner()) learner_.request_sync(opening.sync, outbox_);
        return;
    }
    Bytes body;
    Writer writer(body);
    writer.u64(opening.nonce);
    Txn request;
    request.op = OpCode::open_session;
    if (opening.session != SessionId{}) {
        request.op = OpCode::attach_session, request.session = opening.session;
        request.cxid = request.confirmed = opening.cxid;
    } else {
        writer.u32(opening.timeout_ms);
        writer.u64(opening.password.high), writer.u64(opening.password.low);
        if (opening.is_upgrade) {
            writer.u8(1);
            request.cxid = machine_->applied().value;  // Z14
            opening.was_sent = true;
        }
    }
    request.body = body;
    send_request(request);
}

void Replica::send_session(SessionId id, HeldSession& session) {
    COORD_ASSERT(session.sent <= session.pending.size());
    while (session.sent < session.pending.size() && !session.is_blocked) {
        const Pending& pending = session.pending[session.sent];
        const bool is_refused = pending.error != Errc::ok;
        if (session.is_local && detail::is_write(pending.kind) && !is_refused) break;  // R14
        session.sent += 1;
        if (is_refused) continue;
        const bool waits = pending.awaits_sync || machine_->applied() < pending.least;
        if (waits) session.is_blocked = true;  // R9: what follows must not be seen by reads before
        if (pending.awaits_sync) {
            if (role_ == Role::leading) leader_.request_sync(pending.cxid);
            if (is_learner()) learner_.request_sync(pending.cxid, outbox_);
        } else if (detail::is_write(pending.kind)) {
            Txn request;
            request.session = id, request.cxid = pending.cxid;
            request.confirmed = session.confirmed;
            request.op = pending.op, request.body = pending.body;
            session.sent_cxid = (std::max)(session.sent_cxid, pending.cxid);
            send_request(request);
        }
    }
}

void Replica::send_request(const Txn& request) {
    if (role_ == Role::leading) return leader_.number(wall_ms_, *machine_, request);
    const std::size_t room = message_bytes_max_ - message_overhead_bytes;
    if (requests_.size() + request.body.size() + entry_header_bytes > room) flush_requests();
    Writer writer(requests_);
    writer.u64(request.session.value), writer.u64(request.cxid), writer.u64(request.confirmed);
    writer.u8(static_cast<std::uint8_t>(request.op));
    writer.bytes(request.body);
}

void Replica::flush_requests() {
    if (requests_.empty()) return;
    COORD_ASSERT(is_learner());  // a leader numbers them itself
    learner_.request(requests_, outbox_);
    requests_.clear();
}

// Once a heartbeat: what has made no progress since the last time is sent again (R4).
void Replica::repeat_requests() {
    const Duration interval = options_.timing.heartbeat;
    if (now_ < repeat_at_ && repeat_at_ - now_ <= interval) return;
    repeat_at_ = now_ + interval;
    for (std::size_t i = 0; i < openings_.size(); i++) {
        Opening& opening = openings_[i];
        if (opening.sent) counters_.requests_repeated += 1;
        opening.sent = false;
    }
    if (!openings_.empty() && unsent_.empty()) unsent_.push_back(SessionId{});
    for (auto [id, session] : sessions_) {
        if (session.pending.empty()) continue;
        const std::uint64_t first = session.pending.front().cxid;
        if (first == 0) continue;  // a read that waits has sent nothing
        if (session.stalled_at == first && session.sent > 0) {
            session.sent = 0, session.is_blocked = false;
            list_unsent(id, session);
            counters_.requests_repeated += 1;
        }
        session.stalled_at = first;
    }
}

// -- Results -------------------------------------------------------------------------------------

// executed: the newest of its session's writes before, where the transaction may end that here.
void Replica::complete(const Txn& txn, const Outcome* outcome, std::uint64_t executed) {
    if (txn.op == OpCode::open_session) {
        COORD_ASSERT(outcome != nullptr);
        return complete_open(Reader(txn.body).u64(), outcome->session, outcome->error);
    }
    const auto found = sessions_.find(txn.session);
    const bool is_here = found != sessions_.end() && !found->second.is_local;  // R14
    if (txn.op == OpCode::attach_session && outcome != nullptr && outcome->error == Errc::ok) {
        if (is_here) end_session(txn.session, SessionState::moved, executed);  // R10
        return judge_attaches(txn.session);
    }
    // Nearly all are writes that were executed, which their session has outlived.
    const bool lives = outcome != nullptr && txn.cxid != 0 && txn.op != OpCode::close_session &&
                       outcome->error != Errc::session_expired;
    if (!lives && machine_->find_session(txn.session) == nullptr) {
        const bool is_expired = txn.cxid == 0;
        if (is_here) {
            const auto state = is_expired ? SessionState::expired : SessionState::closed;
            end_session(txn.session, state, executed);
        }
        return judge_attaches(txn.session);
    }
    if (outcome != nullptr && is_here) drain(found->first, found->second);
}

void Replica::complete_open(std::uint64_t nonce, SessionId id, Errc error) {
    std::size_t i = 0;
    while (i < openings_.size() && openings_[i].nonce != nonce) i++;
    if (i == openings_.size()) return;
    // What tells of it may be a snapshot in which somebody has attached it already.
    const SessionRecord* const record = machine_->find_session(id);
    const bool is_taken = record != nullptr && record->cxid >> cxid_bits != 0;  // R10
    if (is_taken) error = Errc::session_moved;
    openings_[i].is_upgrade ? end_upgrade(i, error) : end_opening(i, id, error);
}

COORD_RARE
void Replica::end_opening(std::size_t place, SessionId id, Errc error) {
    Opening& opening = openings_[place];
    Ready& ready = push_ready();
    ready.done = std::move(opening.done);
    ready.error = error, ready.session = id;
    if (error == Errc::ok) {
        const SessionRecord* const record = machine_->find_session(id);
        COORD_ASSERT(record != nullptr && sessions_.find(id) == sessions_.end());  // R10
        const bool is_its = record->cxid >> cxid_bits == 0 || record->holder == opening.nonce;
        COORD_ASSERT(is_its);  // M8
        HeldSession& session = sessions_.at_or_new(id);
        session.timeout_ms = record->timeout_ms;
        session.next_cxid = record->cxid + 1, session.confirmed = record->cxid;
        session.opened_at = opening.asked_at;
        session.attached_at = now_;
        session.state = is_serving() ? SessionState::connected : SessionState::suspended;
    }
    openings_.erase(place);
}

// R10. What can be said of the session, or of all, that are to be attached: whether there is such a
// one, as of a state that is no older than the question; and then, whose it has become.
void Replica::judge_attaches(SessionId of) {
    for (std::size_t i = openings_.size(); i > 0; i--) {
        Opening& opening = openings_[i - 1];
        if (of != SessionId{} && opening.session != of) continue;
        if (opening.session == SessionId{} || !opening.is_synced) continue;
        if (machine_->applied() < opening.sync_zxid) continue;
        const SessionRecord* const record = machine_->find_session(opening.session);
        const bool is_ours = record != nullptr && record->holder == opening.nonce;
        const Errc error = judge_attach(opening);
        if (error != Errc::ok || is_ours) {
            end_opening(i - 1, opening.session, error);
        } else if (!opening.sent && unsent_.empty()) {
            unsent_.push_back(SessionId{});
        }
    }
}

// RETURNS ok also where it is not decided yet.
Errc Replica::judge_attach(Opening& opening) const {
    const SessionRecord* const record = machine_->find_session(opening.session);
    if (record == nullptr) return Errc::session_expired;
    if (record->holder == opening.nonce) return Errc::ok;
    if (!is_same(record->password, opening.password)) return Errc::auth_failed;
    if (opening.cxid != 0) {
        return record->cxid >= opening.cxid ? Errc::session_moved : Errc::ok;  // M8
    }
    opening.cxid = next_holding(record->cxid), opening.sent = false;
    return opening.cxid == 0 ? Errc::too_many : Errc::ok;
}

COORD_RARE
void Replica::catch_up_sessions() {
    // Each is in front as it is looked at, and then it goes, or to the end: none is looked for.
    for (std::size_t left = openings_.size(); left > 0; left--) {
        const std::uint64_t nonce = openings_.front().nonce;
        const SessionRecord* const record = machine_->find_nonce(nonce);
        if (record != nullptr) {
            complete_open(nonce, record->id, Errc::ok);
        } else if (openings_.front().was_sent) {  // it may have been opened, and be over already
            complete_open(nonce, {}, Errc::session_expired);  // Z14
        } else {
            Opening opening = std::move(openings_.front());
            openings_.pop();
            openings_.push() = std::move(opening);
        }
    }
    std::vector<SessionId> ids;
    for (const auto& entry : sessions_) ids.push_back(entry.first);
    for (const SessionId id : ids) {
        const auto found = sessions_.find(id);
        if (found == sessions_.end()) continue;
        HeldSession& session = found->second;
        const SessionRecord* const record = machine_->find_session(id);
        if (session.is_local) {
            drain(id, session);
        } else if (record == nullptr) {
            const bool is_closed = session.closing;
            end_session(id, is_closed ? SessionState::closed : SessionState::expired, UINT64_MAX);
        } else if (next_holding(record->cxid) != next_holding(session.next_cxid)) {
            end_session(id, SessionState::moved, UINT64_MAX);  // R10
        } else {
            drain(id, session);
        }
    }
    judge_attaches(SessionId{});
}

void Replica::drain(SessionId id, HeldSession& session) {
    while (!session.pending.empty() && drain_one(id, session, session.pending.front())) {
        session.pending.pop(), requests_waiting_ -= 1;
        if (session.sent > 0) session.sent -= 1;
        if (session.sent > 0 || !session.is_blocked) continue;
        session.is_blocked = false;  // it was the last one sent
        if (!session.pending.empty()) list_unsent(id, session);
    }
    if (!session.is_busy) return;
    const bool is_idle = session.pending.empty();
    const bool is_over = !is_idle && session.pending.front().kind == Request::Kind::close;
    if (is_idle || is_over) settling_.push_back(id);
}

// Where reads have to wait, those who were behind in turn are before the others next time.
void Replica::drain_all() {
    awaited_ = newest;  // what still waits says so again
    reads_later_ = false;
    const SessionId after = drained_;
    const auto has_room = [this] { return !reads_later_ && read_bytes_ < answer_bytes_max_; };
    for (auto next = sessions_.upper_bound(after); next != sessions_.end(); ++next) {
        if (has_room()) drained_ = next->first;
        drain(next->first, next->second);
    }
    for (auto [id, session] : sessions_) {
        if (after < id) break;
        if (has_room()) drained_ = id;
        drain(id, session);
    }
}

// Ends the first pending request of a session if its time has come.
bool Replica::drain_one(SessionId id, HeldSession& session, Pending& pending) {
    if (pending.error != Errc::ok) {
        refuse(std::move(pending.done), pending.error);
        return true;
    }
    if (detail::is_write(pending.kind)) return drain_write(id, session, pending);
    if (pending.awaits_sync) return false;
    if (machine_->applied() < pending.least) {
        // A state that may never be: the session's end does not wait for it.
        const bool is_given_up = session.closing && pending.cxid == 0;
        if (is_given_up) refuse(std::move(pending.done), Errc::cancelled);
        if (!is_given_up) awaited_ = (std::min)(awaited_, pending.least);
        return is_given_up;
    }
    if (pending.kind == Request::Kind::sync) {
        refuse(std::move(pending.done), Errc::ok);
        return true;
    }
    using Kind = Request::Kind;
    if (pending.watcher && has_too_many_watches(id)) {
        const Watcher dropped = std::move(pending.watcher);  // last: what it holds may call
        counters_.requests_refused += 1;
        refuse(std::move(pending.done), Errc::too_many);
        return true;
    }
    if (pending.kind == Kind::add_watch || pending.kind == Kind::remove_watches ||
        pending.kind == Kind::watch_since) {
        change_watches(id, pending);
        return true;
    }
    reads_later_ = reads_later_ || read_bytes_ >= answer_bytes_max_;
    if (reads_later_) return false;
    execute_read(id, pending);  // last: what its watcher holds may ask for more
    return true;
}

bool Replica::drain_write(SessionId id, HeldSession& session, Pending& pending) {
    COORD_ASSERT(!pending.awaits_sync && !pending.watcher && pending.least == Zxid{});
    if (session.is_local) return false;  // R14: whoever has a record of that id
    const SessionRecord* const record = machine_->find_session(id);
    if (record == nullptr || record->cxid < pending.cxid) return false;
    const Outcome* const outcome = record->outcome_of(pending.cxid);
    session.confirmed = pending.cxid;
    if (outcome == nullptr) {  // a peer has confirmed what is not its to confirm
        refuse(std::move(pending.done), Errc::outcome_unknown);
    } else {
        finish(pending, *outcome);
    }
    return true;
}

void Replica::finish(Pending& pending, const Outcome& outcome) {
    Ready& ready = push_ready();
    ready.done = std::move(pending.done);
    ready.error = outcome.error;
    ready.text.assign(outcome.path);
    ready.root_bytes = pending.root_bytes;
    ready.stat = outcome.stat;
    ready.zxid = outcome.zxid;
    ready.is_brief = outcome.parts.empty();
    if (ready.is_brief) return;
    ready.parts = outcome.parts;
    if (outcome.op == OpCode::multi) unwrap(pending.guards, ready);
    hold_bytes(ready, ready.write_bytes);
    write_bytes_ += ready.write_bytes;
}

// Of a multi that was asked for as one, what guards it goes; of one that was not, its last part is
// the answer.
void Replica::unwrap(std::size_t guards, Ready& ready) {
    std::vector<Part>& parts = ready.parts;
    guards = (std::min)(guards, parts.size());  // fewer, where a peer has asked in its place
    if (ready.done.kind() == Completion::Kind::multi) {
        parts.erase(parts.begin(), parts.begin() + static_cast<std::ptrdiff_t>(guards));
    } else if (!parts.empty()) {
        ready.text = std::move(parts.back().path);
        ready.stat = parts.back().stat;
        parts.clear();
    }
}

namespace detail {

static std::size_t bytes_of(const Found& found) {
    std::size_t bytes = found.bytes.size() + found.acl.bytes().size();
    for (const Bytes& each : found.names) bytes += sizeof(each) + each.size();
    for (const Child& each : found.nodes) {
        bytes += sizeof(each) + each.name.size() + each.bytes.size();
    }
    return bytes;
}

}  // namespace detail

// What an answer holds, until it is told (R12).
void Replica::hold_bytes(Ready& ready, std::size_t& held) const {
    COORD_ASSERT(held == 0);
    held = detail::bytes_of(ready);
    for (const Found& found : ready.found) held += sizeof(found) + detail::bytes_of(found);
    for (const Part& part : ready.parts) held += sizeof(part) + part.path.size();
}

// Whether it is only for what is ready that the next request has not been answered.
bool Replica::has_read_due(const HeldSession& session) const {
    if (!reads_later_ || session.pending.empty()) return false;
    const Pending& pending = session.pending.front();
    const bool is_due = pending.error == Errc::ok && !pending.awaits_sync &&
                        pending.least <= machine_->applied();
    return is_due && detail::is_read(pending.kind);
}

// R9: of its session's own writes a read sees those before it alone. There are only so many of
// those. But what others do to the session, or what is void, may have any number of reads before
// it, and more whenever some are answered: that waits for none but those before a write that a
// snapshot had in it already (R13).
bool Replica::must_read_first(const Txn& txn) const {
    if (!reads_later_) return false;
    const SessionRecord* const record = machine_->find_session(txn.session);
    const auto found = sessions_.find(txn.session);
    if (record == nullptr || found == sessions_.end()) return false;
    const bool is_own = txn.op != OpCode::attach_session && record->cxid < txn.cxid;
    const bool is_behind_own = is_own || found->second.confirmed < record->cxid;
    return is_behind_own && has_read_due(found->second);
}

// Where the state jumps there may be any write in it.
bool Replica::must_read_before_jump() const {
    if (!reads_later_) return false;
    for (const auto& [id, session] : sessions_) {
        if (!has_read_due(session)) continue;
        for (std::size_t i = 0; i < session.pending.size(); i++) {
            if (detail::is_write(session.pending[i].kind)) return true;
        }
    }
    return false;
}

// A query as it is looked up: its views are into the pending request.
struct Replica::Look {
    Query::Kind kind = Query::Kind::exists;
    Errc error = Errc::ok;  // judged before
    BytesView path;
    BytesView after;
    BytesView prefix;
    std::size_t limit = SIZE_MAX;
};

// What an answer may still hold.
struct Replica::Room {
    explicit Room(const Limits& limits)
        : items((std::min)(std::size_t{limits.list_max}, SIZE_MAX - 1)),  // one more can be told
          bytes((std::max)(std::size_t{limits.answer_bytes_max}, whole_node(limits))) {}
    static std::size_t whole_node(const Limits& limits) {
        const std::uint64_t most = std::uint64_t{limits.data_bytes_max} + limits.path_bytes_max;
        return static_cast<std::size_t>((std::min)(most, std::uint64_t{SIZE_MAX}));
    }
    std::size_t items;
    std::size_t bytes;
};

std::size_t Replica::answer_bytes_max(const Limits& limits) {
    const std::uint64_t most = std::uint64_t{Room(limits).bytes} * detail::answers_max;
    return static_cast<std::size_t>((std::min)(most, std::uint64_t{SIZE_MAX}));
}

Errc Replica::judge_query(const Query& query) const {
    const std::size_t most = options_.limits.path_bytes_max;
    if (query.page.after.size() > most || query.page.prefix.size() > most) return Errc::too_large;
    if (query.kind > Query::Kind::acl) return Errc::bad_arguments;
    // What a number might stand after begins a path, and so does what ephemerals are looked for by.
    const bool is_begun = query.kind == Query::Kind::ephemerals;
    return judge_path(is_begun ? OpCode::create : OpCode::check, query.path,
                      CreateMode::persistent_sequential);
}

void Replica::encode_queries(const std::vector<Query>& queries, Bytes& body) const {
    body.clear();
    Writer writer(body);
    writer.u32(static_cast<std::uint32_t>(queries.size()));
    for (const Query& query : queries) {
        const Errc error = judge_query(query);
        writer.u8(static_cast<std::uint8_t>(query.kind));
        writer.i32(static_cast<std::int32_t>(error));
        writer.bytes(error == Errc::ok ? query.path : BytesView());
        writer.bytes(error == Errc::ok ? query.page.after : BytesView());
        writer.bytes(error == Errc::ok ? query.page.prefix : BytesView());
        writer.u64(query.page.limit);
    }
}

void Replica::execute_queries(SessionId id, BytesView body, Ready& ready) const {
    const bool is_one = ready.done.kind() == Completion::Kind::found;
    Room room(options_.limits);
    Reader in(body);
    const std::size_t count = in.u32();
    COORD_ASSERT(count <= options_.limits.multi_parts_max && (!is_one || count == 1));
    if (!is_one) ready.found = std::vector<Found>(count);
    for (std::size_t i = 0; i < count; i++) {
        Look look;
        look.kind = static_cast<Query::Kind>(in.u8());
        look.error = static_cast<Errc>(in.i32());
        look.path = in.bytes(SIZE_MAX), look.after = in.bytes(SIZE_MAX);
        look.prefix = in.bytes(SIZE_MAX);
        look.limit = static_cast<std::size_t>(in.u64());
        COORD_ASSERT(in.ok());
        Found& found = is_one ? ready : ready.found[i];
        look_up(id, look, room, found);
        COORD_ASSERT(found.zxid == ready.zxid);  // R8
    }
}

// One query of an answer, into what room the others have left. What it is put into may have held
// another answer before.
void Replica::look_up(SessionId id, const Look& look, Room& room, Found& found) const {
    COORD_ASSERT(found.names.empty() && found.nodes.empty() && !found.more);
    found.zxid = machine_->applied();
    found.error = look.error;
    found.stat = Stat{}, found.count = 0, found.bytes.clear();
    if (!found.acl.empty()) found.acl = Acl();
    if (found.error == Errc::ok && look.kind == Query::Kind::ephemerals) {
        list_ephemerals(id, look, room, found);
    } else if (found.error == Errc::ok && look.kind == Query::Kind::identities) {
        list_identities(id, found);
    } else if (found.error == Errc::ok) {
        look_at_node(id, look, room, found);
    }
    // A page that others have left no room for: there is nothing to go on after.
    const bool is_left_out = found.more && look.limit > 0;
    if (is_left_out && found.names.empty() && found.nodes.empty()) found.error = Errc::too_large;
    if (found.error != Errc::ok) found.stat = Stat{}, found.more = false;
}

namespace detail {

// RETURNS what one of these is enough for. exists is free: see Session.
static std::uint32_t permission_for(Query::Kind kind) {
    if (kind == Query::Kind::acl) return permission::read | permission::admin;
    return kind == Query::Kind::exists ? 0 : permission::read;
}

}  // namespace detail

void Replica::look_at_node(SessionId id, const Look& look, Room& room, Found& found) const {
    using Kind = Query::Kind;
    const Tree& tree = machine_->tree();
    const std::optional<NodeView> node = tree.find(look.path);
    if (!node) found.error = Errc::no_node;
    if (!node) return;
    const std::uint32_t wanted = detail::permission_for(look.kind);
    const bool may = wanted == 0 || machine_->may(id, node->acl, wanted);  // R11
    if (!may) found.error = Errc::no_auth;
    if (!may) return;
    found.stat = node->stat;
    if (look.kind == Kind::acl) {
        show_acl(id, node->acl, room, found);
    } else if (look.kind == Kind::get && node->data.size() > room.bytes) {
        found.error = Errc::too_large;
    } else if (look.kind == Kind::get) {
        found.bytes.assign(node->data), found.is_null = is_null(node->data);
        room.bytes -= node->data.size();
    } else if (look.kind == Kind::children) {
        const std::size_t limit = (std::min)(look.limit, room.items);
        found.error = tree.children(look.path, look.after, limit + 1, found.names, look.prefix);
        found.more = found.names.size() > limit;
        if (found.more) found.names.pop_back();
        room.items -= found.names.size();
    } else if (look.kind == Kind::list) {
        list_nodes(id, look, room, found);
    } else if (look.kind == Kind::descendants) {
        const Result<std::size_t> count = tree.descendants(look.path, room.items);
        found.error = count.error();
        found.count = count.value_or(0);
        const bool is_walked = look.path.size() > 1;  // how many are below the root is known
        if (is_walked) room.items -= (std::min)(room.items, count.value_or(room.items));
    }
}

COORD_RARE
void Replica::show_acl(SessionId id, BytesView acl, Room& room, Found& found) const {
    COORD_ASSERT(machine_->may(id, acl, permission::read | permission::admin));  // R11
    const bool is_shown = machine_->may(id, acl, permission::admin);
    Reader in(acl.empty() ? detail::open_bytes : acl);
    Acl::Entry entry;
    Bytes hidden;
    while (detail::read_entry(in, entry)) {
        if (!is_shown && entry.scheme == "digest") {
            hidden.assign(entry.id.substr(0, entry.id.find(':'))).append(":x");
            entry.id = hidden;
        }
        found.acl.add(entry.permissions, entry.scheme, entry.id);
    }
    const std::size_t bytes = found.acl.bytes().size();
    if (bytes > room.bytes) found.error = Errc::too_large, found.acl = Acl();
    room.bytes -= (std::min)(bytes, room.bytes);
}

COORD_RARE
void Replica::list_identities(SessionId id, Found& found) const {
    const SessionRecord* const record = machine_->find_session(id);
    Reader in(record == nullptr ? BytesView() : BytesView(record->identities));
    Acl::Entry entry;
    while (detail::read_entry(in, entry)) {
        const bool is_digest = entry.scheme == "digest";
        if (is_digest) entry.id = entry.id.substr(0, entry.id.find(':'));
        found.acl.add(0, entry.scheme, entry.id);
    }
}

void Replica::list_nodes(SessionId id, const Look& look, Room& room, Found& found) const {
    const std::size_t limit = (std::min)(look.limit, room.items);
    const auto take = [&](NodeView child) {
        const BytesView child_is = node_name(child.path);
        const bool may = machine_->may(id, child.acl, permission::read);  // R11
        if (!may) child.data = BytesView();
        const std::size_t bytes = child_is.size() + child.data.size();
        found.more = found.nodes.size() == limit || bytes > room.bytes;
        if (found.more) return false;
        room.bytes -= bytes;
        found.nodes.push_back(
            {Bytes(child_is), Bytes(child.data), child.stat, is_null(child.data),
             may ? Errc::ok : Errc::no_auth});
        return true;
    };
    found.error = machine_->tree().list(look.path, look.after, look.prefix, take);
    room.items -= found.nodes.size();
}

COORD_RARE
void Replica::list_ephemerals(SessionId id, const Look& look, Room& room, Found& found) const {
    const SessionRecord* const record = machine_->find_session(id);
    const bool is_over = record == nullptr && !is_local_session(id);
    if (is_over) found.error = Errc::session_expired;  // it is about to be told
    if (record == nullptr) return;
    const std::size_t limit = (std::min)(look.limit, room.items);
    const auto take = [&](const NodeView& node) {
        found.more = found.names.size() == limit;
        if (!found.more) found.names.emplace_back(node.path);
        return !found.more;
    };
    machine_->tree().list_owned(id, look.after, look.path, take);
    room.items -= found.names.size();
}

Replica::Look Replica::look_of(const Pending& pending) {
    using Kind = Request::Kind;
    Look look;
    look.kind = pending.kind == Kind::get        ? Query::Kind::get
                : pending.kind == Kind::children ? Query::Kind::children
                : pending.kind == Kind::get_acl  ? Query::Kind::acl
                : pending.kind == Kind::whoami   ? Query::Kind::identities
                                                 : Query::Kind::exists;
    look.path = pending.body;
    look.after = pending.page.after, look.prefix = pending.page.prefix;
    look.limit = pending.page.limit;
    return look;
}

void Replica::execute_read(SessionId id, Pending& pending) {
    using Kind = Request::Kind;
    COORD_ASSERT(detail::is_read(pending.kind));
    COORD_ASSERT(pending.least <= machine_->applied());  // R9
    Ready& ready = push_ready();
    ready.done = std::move(pending.done);
    ready.zxid = machine_->applied();
    ready.root_bytes = pending.root_bytes;
    if (pending.kind == Kind::read) {
        execute_queries(id, pending.body, ready);
        hold_bytes(ready, ready.read_bytes);
        read_bytes_ += ready.read_bytes;
        return;
    }
    Room room(options_.limits);
    look_up(id, look_of(pending), room, ready);
    hold_bytes(ready, ready.read_bytes);
    read_bytes_ += ready.read_bytes;
    const bool watches = ready.error == Errc::ok || pending.kind == Kind::exists;
    if (pending.watcher && watches) {
        const WatchKind kind =
            pending.kind == Kind::children ? WatchKind::children : WatchKind::data;
        watches_.add(kind, pending.body, id, std::move(pending.watcher));
    }
    pending.watcher = nullptr;
}

COORD_RARE
void Replica::change_watches(SessionId id, Pending& pending) {
    Errc error = Errc::ok;
    if (pending.kind == Request::Kind::add_watch) {
        const bool is_recursive = pending.watcher_type == WatcherType::persistent_recursive;
        watches_.add(is_recursive ? WatchKind::recursive : WatchKind::persistent, pending.body, id,
                     std::move(pending.watcher));
    } else if (pending.kind == Request::Kind::watch_since) {
        watches_.add_since(pending.since, pending.watched, pending.body, id,
                           std::move(pending.watcher), machine_->tree(), machine_->applied());
    } else if (watches_.remove(pending.watcher_type, pending.body, id, machine_->applied()) == 0) {
        error = Errc::no_watcher;
    }
    pending.watcher = nullptr;
    refuse(std::move(pending.done), error);
}

namespace detail {

// The path that a write's body begins with, or none.
static BytesView path_in(OpCode op, BytesView body) {
    const bool has_path = op == OpCode::create || op == OpCode::set || op == OpCode::remove ||
                          op == OpCode::set_acl;
    return has_path ? Reader(body).bytes(body.size()) : BytesView();
}

}  // namespace detail

COORD_RARE
Unresolved Replica::unresolved_of(SessionId id, const Pending& pending) {
    return {id, pending.cxid, pending.op, Bytes(detail::path_in(pending.op, pending.body))};
}

// R13, of any request. It is in doubt where it has left, and what has been executed of its session,
// as far as that is known, may reach to it.
COORD_RARE
void Replica::end_write(SessionId id, const HeldSession& session, Pending& pending,
                        std::uint64_t executed, Errc error) {
    const bool is_numbered =
        detail::is_write(pending.kind) && pending.error == Errc::ok && !session.is_local;
    const bool is_in_doubt =
        is_numbered && pending.cxid <= (std::min)(session.sent_cxid, executed);
    if (is_in_doubt) {
        COORD_ASSERT(pending.cxid > session.confirmed);  // R13
        if (unresolved_.size() == unresolved_max) unresolved_.pop();
        unresolved_.push() = unresolved_of(id, pending);
    }
    refuse(std::move(pending.done), is_in_doubt ? Errc::outcome_unknown : error);
}

std::vector<Unresolved> Replica::unresolved(SessionId id, std::uint64_t holding) const {
    std::vector<Unresolved> all;
    for (std::size_t i = 0; i < unresolved_.size(); i++) {
        const Unresolved& one = unresolved_[i];
        const bool is_its = holding == any_holding || one.cxid >> cxid_bits == holding;
        if (one.session == id && is_its) all.push_back(one);
    }
    const HeldSession* const session = find_held(id, holding);
    const bool may_have_left = session != nullptr && !session->is_local;  // R14
    for (std::size_t i = 0; may_have_left && i < session->pending.size(); i++) {
        const Pending& pending = session->pending[i];
        const bool is_numbered = detail::is_write(pending.kind) && pending.error == Errc::ok;
        const bool has_left = is_numbered && pending.cxid <= session->sent_cxid;
        if (has_left) all.push_back(unresolved_of(id, pending));
    }
    return all;
}

// executed: of its writes none after that one has been; UINT64_MAX where that is not known.
COORD_RARE
void Replica::end_session(SessionId id, SessionState state, std::uint64_t executed) {
    const auto found = sessions_.find(id);
    COORD_ASSERT(found != sessions_.end());
    if (found->second.is_busy) busy_ -= 1;
    // Destroyed last, when it is known nowhere any more: what its watchers hold may call on.
    HeldSession session = std::move(found->second);
    sessions_.erase(found);
    requests_waiting_ -= session.pending.size();
    for (; !session.pending.empty(); session.pending.pop()) {
        Pending& pending = session.pending.front();
        const bool is_close = pending.kind == Request::Kind::close;
        const bool closed = is_close && state == SessionState::closed;
        const Errc over =
            state == SessionState::moved ? Errc::session_moved : Errc::session_expired;
        if (is_close) refuse(std::move(pending.done), closed ? Errc::ok : over);
        if (!is_close) end_write(id, session, pending, executed, over);
    }
    watches_.remove_session(id);
    const bool has_moved = state == SessionState::moved;
    history_->end_session(id, has_moved ? Errc::session_moved : Errc::session_expired);
    session.state = state;
    tell_state(session);
}

void Replica::on_event(SessionId session, detail::Shared<const Watcher> watcher, EventType type,
                       BytesView path, Zxid zxid, BytesView acl) {
    // One that does not hear of it is let go of with those that do: what it holds may call anything
    // then, and here a transaction may be half applied.
    Ready& ready = push_ready();
    ready.watcher = std::move(watcher);
    if (!machine_->may(session, acl, permission::read)) return;  // W3
    counters_.events += 1;
    ready.event = type;
    ready.text.assign(path.data(), path.size());
    ready.zxid = zxid;
}

void Replica::tell_state(const HeldSession& session) {
    for (std::size_t i = 0; i < session.listeners.size(); i++) {
        Ready& ready = push_ready();
        ready.on_state = session.listeners[i];
        ready.state = session.state;
    }
}

void Replica::tell_states() {
    const bool serving = is_serving();
    if (serving == was_serving_) return;
    was_serving_ = serving;
    if (serving) aside_ = 0;
    for (auto [id, session] : idle_) {
        session.state = serving ? SessionState::connected : SessionState::suspended;
        tell_state(session);
    }
    for (auto [id, session] : sessions_) {
        session.state = serving ? SessionState::connected : SessionState::suspended;
        if (serving) {
            session.sent = 0, session.is_blocked = false;
            if (!session.pending.empty()) list_unsent(id, session);
        }
        tell_state(session);
    }
    for (std::size_t i = 0; i < openings_.size(); i++) openings_[i].sent = false;
    if (!openings_.empty() && unsent_.empty()) unsent_.push_back(SessionId{});
}

void Replica::at(Time time, Callback<void()> call) {
    counters_.calls += 1;
    if (is_ending_) return;
    timers_.add(Timer{time, 0, std::move(call)});
}

void Replica::subscribe(detail::Subscriber& subscriber) {
    counters_.calls += 1;
    if (is_ending_) subscriber.error = Errc::replica_failed;
    if (is_ending_) return;
    const HeldSession* const held = find_held(subscriber.session, subscriber.holding);
    Errc error = Errc::ok;
    if (role_ == Role::failed) {
        error = Errc::replica_failed;
    } else if (held == nullptr && machine_->find_session(subscriber.session) != nullptr) {
        error = Errc::session_moved;  // R10
    } else if (held == nullptr || held->closing) {
        error = Errc::session_expired;
    } else if (history_->count(subscriber.session) >= options_.limits.watches_per_session_max) {
        error = Errc::too_many;
    } else if (options_.change_bytes_kept == 0) {
        error = Errc::api_error;
    } else {
        error = judge_path(OpCode::check, subscriber.path, CreateMode::persistent);
    }
    history_->add(subscriber, error);
}

void Replica::tell_subscribers() {
    history_->work(machine_->applied());
    std::uint64_t number = 0;
    while (history_->take_told(number)) {
        push_ready().call = [&history = *history_, number] {
            detail::call_subscriber(history, number);
        };
    }
}

void Replica::run_timers() {
    while (!timers_.empty() && timers_.front().at <= now_) {
        push_ready().call = timers_.take().call;
    }
}

// Out of the queue, which a callback may make grow. Most are what became of a write: little of them
// says anything, and nothing else is moved.
void Replica::take_ready() {
    Ready& ready = ready_.front();
    if (ready.is_brief) {
        COORD_ASSERT(ready.read_bytes == 0 && ready.write_bytes == 0 && ready.parts.empty());
        if (!current_.is_brief) current_ = Ready();
        current_.is_brief = true;
        current_.error = ready.error, current_.zxid = ready.zxid, current_.stat = ready.stat;
        current_.done = std::move(ready.done), current_.root_bytes = ready.root_bytes;
        current_.text.swap(ready.text);
    } else {
        current_ = std::move(ready);
    }
    ready_.pop();
}

// Runs what is ready now. What those callbacks make ready comes in the next poll, which is due.
void Replica::run_callbacks() {
    COORD_ASSERT(in_poll_);
    const bool is_much = ready_.size() > detail::callbacks_kept;
    counters_.answers += ready_.size();
    for (std::size_t count = ready_.size(); count > 0; count--) {
        take_ready();
        COORD_ASSERT(read_bytes_ >= current_.read_bytes);  // R12
        COORD_ASSERT(write_bytes_ >= current_.write_bytes);
        read_bytes_ -= current_.read_bytes, write_bytes_ -= current_.write_bytes;
        call(current_);
        if (current_.text.capacity() > detail::text_bytes_kept) Bytes().swap(current_.text);
        if (current_.bytes.capacity() > detail::text_bytes_kept) Bytes().swap(current_.bytes);
    }
    if (is_much && ready_.empty()) ready_ = detail::Ring<Ready>();
}

namespace detail {

// Of children the names are no paths, and begin with no '/'.
static void cut_root(std::size_t root_bytes, Found& found) {
    for (Bytes& each : found.names) {
        if (each[0] == '/') cut_root(root_bytes, each);
    }
}

}  // namespace detail

void Replica::cut_root(Ready& ready) {
    detail::cut_root(ready.root_bytes, ready.text);
    detail::cut_root(ready.root_bytes, static_cast<Found&>(ready));
    for (Part& part : ready.parts) detail::cut_root(ready.root_bytes, part.path);
    for (Found& found : ready.found) detail::cut_root(ready.root_bytes, found);
}

// Whoever made it left it so: a set since would have gone by another zxid, or another version.
static bool is_created(const Stat& stat) { return stat.czxid == stat.mzxid && stat.version == 0; }

void Replica::end_request(Ready& ready) {
    using Kind = Completion::Kind;
    answer_zxid_ = ready.zxid;
    if (ready.root_bytes > 0) cut_root(ready);
    const Errc error = ready.error;
    const bool good = error == Errc::ok;
    const Completion& done = ready.done;
    switch (done.kind()) {
        case Kind::none: break;
        case Kind::opened: done(good ? Result<SessionId>(ready.session) : error); break;
        case Kind::created:
            done(good ? Result<Created>({ready.text, ready.stat, is_created(ready.stat)}) : error);
            break;
        case Kind::stat: done(good ? Result<Stat>(ready.stat) : error); break;
        case Kind::data:
            done(good ? Result<Data>({ready.bytes, ready.stat, ready.zxid, ready.is_null})
                      : error);
            break;
        case Kind::children:
            done(good ? Result<Children>({std::move(ready.names), ready.stat, ready.zxid,
                                          ready.more})
                      : error);
            break;
        case Kind::done: done(Result<void>(error)); break;
        case Kind::multi: done(Multi{error, std::move(ready.parts)}); break;
        case Kind::acl:
            done(good ? Result<NodeAcl>({std::move(ready.acl), ready.stat}) : error);
            break;
        case Kind::found:
            done(good ? Result<Found>(std::move(static_cast<Found&>(ready))) : error);
            break;
        case Kind::multi_read:
            done(good ? Result<MultiRead>({ready.zxid, std::move(ready.found)}) : error);
            break;
    }
}

void Replica::call(Ready& ready) {
    const bool hears = ready.watcher && ready.event != EventType::none;
    if (hears) (*ready.watcher)(WatchEvent{ready.event, ready.text, ready.zxid});
    if (ready.on_state) ready.on_state(ready.state);
    if (ready.call) ready.call();
    end_request(ready);
    if (ready.done.kind() != Completion::Kind::none) ready.done = Completion{};
    if (ready.watcher) ready.watcher = nullptr;
    if (ready.on_state) ready.on_state = nullptr;
    if (ready.call) ready.call = nullptr;
}

// -- Sessions' lives -----------------------------------------------------------------------------

void Replica::send_pong() {
    // The pings of sync rounds come often; sessions are touched once a heartbeat all the same.
    const Duration recent = options_.timing.heartbeat / 2;
    if (!touches_.empty() && now_ - touches_.back().sent_at < recent) {
        return learner_.pong_alone(outbox_);
    }
    scratch_.clear();
    Writer writer(scratch_);
    for (const auto& entry : sessions_) {
        if (!entry.second.is_local) writer.u64(entry.first.value);
    }
    touch_ += 1;
    if (touches_.size() == detail::touches_max) touches_.pop();
    touches_.push() = Touch{touch_, now_};
    learner_.pong(touch_, scratch_, message_bytes_max_, outbox_);
}

// A lease waits until what stands before it is applied, and no later one takes its place before.
void Replica::renew_lease() {
    for (int i = 0; i < 2; i++) {
        if (machine_->applied() < lease_due_at_) return;  // an expiry may stand before
        lease_from_ = (std::max)(lease_from_, lease_due_);
        if (i == 0) take_next_lease();
    }
}

void Replica::take_next_lease() {
    if (role_ == Role::leading && leader_.lease_from() > lease_due_) {
        lease_due_ = leader_.lease_from(), lease_due_at_ = leader_.lease_at();
    }
    if (!is_learner()) return;
    const std::uint64_t confirmed = learner_.touch_confirmed();
    if (touches_.empty() || confirmed < touches_.front().number) return;
    const std::uint64_t place = confirmed - touches_.front().number;  // they are numbered in a row
    if (place >= touches_.size()) return;
    const Touch& touch = touches_[static_cast<std::size_t>(place)];
    COORD_ASSERT(touch.number == confirmed);
    if (touch.sent_at <= lease_due_) return;
    lease_due_ = touch.sent_at, lease_due_at_ = learner_.touch_confirmed_at();
}

void Replica::touch_own_sessions() {
    COORD_ASSERT(role_ == Role::leading);
    pings_ = leader_.pings();
    for (const auto& entry : sessions_) {
        if (!entry.second.is_local) leader_.touch(entry.first);
    }
}

const Replica::HeldSession* Replica::find_held(SessionId id, std::uint64_t holding) const {
    const auto found = sessions_.find(id);
    const HeldSession* here = found != sessions_.end() ? &found->second : nullptr;
    const auto idle = here == nullptr ? idle_.find(id) : idle_.end();
    if (idle != idle_.end()) here = &idle->second;
    return here != nullptr && is_held(*here, holding) ? here : nullptr;
}

Replica::HeldSession* Replica::find_here(SessionId id) {
    const auto found = sessions_.find(id);
    if (found != sessions_.end()) return &found->second;
    const auto idle = idle_.find(id);
    return idle != idle_.end() ? &idle->second : nullptr;
}

bool Replica::is_local_session(SessionId id, std::uint64_t holding) const {
    const HeldSession* const held = find_held(id, holding);
    return held != nullptr && held->is_local;
}

Time Replica::certain_until(SessionId id, std::uint64_t holding) const {
    const HeldSession* const held = find_held(id, holding);
    if (held == nullptr || role_ == Role::failed) return Time{};
    const HeldSession& session = *held;
    if (session.closing || session.is_local) return Time{};
    const Time from = lease_from_ > session.attached_at ? lease_from_ : session.opened_at;
    const std::int64_t permille = 1000 - options_.clock_drift_permille;
    return from + milliseconds(session.timeout_ms) / 1000 * permille;
}

// All that were answered at once: each session is looked at once, however many have asked. What
// awaits an answer is the last that its session has sent (R9).
void Replica::take_syncs() {
    std::uint64_t sequence = 0;
    Zxid zxid;
    const auto take_one = [&] {
        return (role_ == Role::leading && leader_.take_own_synced(sequence, zxid)) ||
               (is_learner() && learner_.take_synced(sequence, zxid));
    };
    bool has_one = take_one();
    if (!has_one && machine_->applied() < awaited_) return judge_attaches(SessionId{});
    detail::Numbers answers;
    for (; has_one; has_one = take_one()) detail::number_at(answers, sequence) = zxid.value;
    const auto answered = [&answers, &zxid](std::uint64_t asked) {
        const auto answer = answers.find(asked);
        if (answer != answers.end()) zxid = Zxid{answer->second};
        return answer != answers.end();
    };
    for (auto [id, session] : sessions_) {
        if (answers.empty()) break;
        if (!session.is_blocked) continue;
        COORD_ASSERT(session.sent > 0);  // R9
        Pending& pending = session.pending[session.sent - 1];
        if (!pending.awaits_sync || !answered(pending.cxid)) continue;
        pending.awaits_sync = false;
        if (zxid < pending.least) pending.cxid = 0;  // of watch_since: that may never be
        pending.least = (std::max)(pending.least, zxid);
    }
    for (std::size_t i = 0; i < openings_.size() && !answers.empty(); i++) {
        Opening& opening = openings_[i];
        if (answered(opening.sync)) opening.is_synced = true, opening.sync_zxid = zxid;
    }
    drain_all();
    judge_attaches(SessionId{});
}

SessionState Replica::session_state(SessionId id, std::uint64_t holding) const {
    const HeldSession* const session = find_held(id, holding);
    if (session != nullptr) return session->state;
    const bool lives = machine_->find_session(id) != nullptr;
    return lives ? SessionState::moved : SessionState::expired;
}

void Replica::on_session_state(SessionId id, OnState listener, std::uint64_t holding) {
    if (find_held(id, holding) == nullptr || !listener) return;
    find_here(id)->listeners.push() = std::move(listener);
}

SessionPassword Replica::session_password(SessionId id, std::uint64_t holding) const {
    const SessionRecord* const record = machine_->find_session(id);
    const HeldSession* const held = find_held(id, holding);
    if (held != nullptr && held->is_local) return held->password;
    return held != nullptr && record != nullptr ? record->password : SessionPassword{};
}

Duration Replica::session_timeout(SessionId id) const {
    const HeldSession* const held = find_held(id, any_holding);
    return milliseconds(held == nullptr ? 0 : held->timeout_ms);
}

std::vector<WatchRow> Replica::list_watches(WatchOrder order, const WatchRow& after,
                                            std::size_t limit) const {
    return watches_.list(order, after, (std::min)(limit, std::size_t{options_.limits.list_max}));
}

ReplicaStatus Replica::status() const {
    ReplicaStatus status;
    status.role = role_;
    status.serving = is_serving();
    if (role_ == Role::leading) status.leader = options_.id;
    if (is_learner()) status.leader = learner_.leader();
    if (role_ == Role::leading) status.observers = leader_.observers();
    status.epoch = log_.durable_epochs().current;
    status.accepted_epoch = log_.durable_epochs().accepted;
    status.last = log_.last().zxid, status.durable = log_.durable_last();
    status.committed = committed_, status.applied = machine_->applied();
    status.digest = machine_->digest();
    status.nodes = machine_->tree().size();
    status.sessions = machine_->sessions().size();
    status.local_sessions = idle_.size() + busy_;
    status.watches = watches_.count();
    if (log_.is_waiting()) status.flush_lag = now_ - log_.waiting_since();
    status.flush_longest = (std::max)(flush_longest_, status.flush_lag);
    status.poll_gap_longest = poll_gap_longest_;
    status.storage = log_.storage_id(), status.admitted = is_admitted(machine_->voters());
    status.full = !log_.has_room() || learner_.waits_for_space();
    status.reason = reason_, status.damage = damage_;
    return status;
}

// -- Insight -------------------------------------------------------------------------------------
// One reading of the state, three faces of it. Nothing here changes anything, and nothing but what
// the log has told is kept for it.

const char* name(LogLevel level) {
    switch (level) {
        case LogLevel::info: return "INFO";
        case LogLevel::warning: return "WARN";
        case LogLevel::error: return "ERROR";
    }
    return "unknown";
}

// The names of ZooKeeper's mntr first. What it says of a leader is 0 at others.
COORD_RARE
void Replica::visit_gauges(const Callback<void(const Metric&)>& visit) const {
    const ReplicaStatus now = status();
    const auto gauge = detail::gauge;
    const bool leads = role_ == Role::leading;
    const std::uint64_t in_step = leads ? detail::count_bits(leader_.voters_in_step(now_)) : 0;
    std::uint64_t followers = 0;
    if (leads) {
        leader_.visit_peers(now_, 0, [&](const PeerState& peer) {
            followers += now_ - peer.heard_at <= options_.timing.silence ? 1u : 0u;
        });
    }
    COORD_ASSERT(followers <= voters_.size());
    const std::uint64_t others = in_step > 0 ? in_step - 1 : 0;
    const std::uint64_t held = sessions_.size() + idle_.size();
    const Duration ran = started_ ? now_ - started_at_ : Duration{};
    const Duration led = leads ? now_ - role_since_ : Duration{};
    const Metric metrics[] = {
        gauge("zk_znode_count", now.nodes, "nodes of the tree"),
        gauge("zk_ephemerals_count", tree().owned_by_all(), "ephemeral nodes"),
        gauge("zk_approximate_data_size", tree().bytes(), "bytes of paths and data"),
        gauge("zk_watch_count", now.watches, "watchers here"),
        gauge("zk_global_sessions", now.sessions, "sessions of the ensemble"),
        gauge("zk_local_sessions", now.local_sessions, "local sessions here"),
        gauge("zk_outstanding_requests", requests_waiting_, "requests without an answer"),
        gauge("zk_learners", followers + now.observers, "learners in reach of this leader"),
        gauge("zk_followers", followers, "voters among them"),
        gauge("zk_synced_followers", others, "of those, in step"),
        gauge("zk_synced_observers", leads ? leader_.observers_in_step(now_) : 0,
                    "observers in step with this leader"),
        gauge("zk_pending_syncs", leads ? leader_.syncs() : 0, "syncs that wait for a round"),
        gauge("zk_quorum_size", voters_.size(), "voters of the ensemble"),
        gauge("zk_uptime", detail::ms_of(ran), "ms since the first poll"),
        gauge("zk_leader_uptime", detail::ms_of(led), "ms since it leads"),
        gauge("coord_serving", now.serving, "1: writes go through"),
        gauge("coord_failed", role_ == Role::failed, "1: it does nothing any more"),
        gauge("coord_epoch", now.epoch, "the current epoch, durable"),
        gauge("coord_sessions_held", held, "sessions that are attached here"),
        gauge("coord_openings_waiting", openings_.size(), "sessions that are being opened"),
        gauge("coord_log_entries", log_.count_after(Zxid{}), "entries in memory"),
        gauge("coord_log_unapplied", log_.count_after(machine_->applied()),
                    "entries that are not applied here"),
        gauge("coord_admitted", now.admitted, "1: its storage counts"),
        gauge("coord_storage_full", now.full, "1: writes that grow wait for space"),
        gauge("coord_flush_lag_ms", detail::ms_of(now.flush_lag),
                    "for so long something has been flushed that is not durable"),
        gauge("coord_flush_longest_ms", detail::ms_of(now.flush_longest), "the longest"),
        gauge("coord_poll_gap_longest_ms", detail::ms_of(now.poll_gap_longest),
                    "between two polls"),
    };
    for (const Metric& metric : metrics) visit(metric);
}

// A row for each counter: one that is added without one does not compile.
COORD_RARE
void Replica::visit_counters(const Callback<void(const Metric&)>& visit) const {
    const ReplicaCounters& own = counters_;
    const LeaderCounters& lead = leader_.counters();
    const auto counter = detail::counter;
    const Metric replicas[] = {
        counter("coord_messages_received", own.messages_received, "messages of peers"),
        counter("coord_messages_sent", own.messages_sent, "messages to peers"),
        counter("coord_bytes_sent", own.bytes_sent, "bytes of those"),
        counter("coord_dropped_corrupt", own.dropped_corrupt, "messages that do not decode"),
        counter("coord_dropped_foreign", own.dropped_foreign, "messages for somebody else"),
        counter("coord_dropped_stale", own.dropped_stale, "messages of another epoch or role"),
        counter("coord_dropped_overflow", own.dropped_overflow, "messages too many for a poll"),
        counter("coord_dropped_unsealed", own.dropped_unsealed, "messages without a right seal"),
        counter("coord_dropped_replayed", own.dropped_replayed, "of another life, or twice"),
        counter("coord_elections", own.elections, "times that it has looked for a leader"),
        counter("coord_applied", own.applied, "transactions applied"),
        counter("coord_over_quota", own.over_quota, "writes over a soft quota"),
        counter("coord_snapshots_taken", own.snapshots_taken, "snapshots of its own"),
        counter("coord_snapshots_given_up", own.snapshots_given_up, "snapshots given up"),
        counter("coord_snapshots_installed", own.snapshots_installed, "snapshots of leaders"),
        counter("coord_requests_refused", own.requests_refused, "refused before a number"),
        counter("coord_requests_repeated", own.requests_repeated, "sent to the leader again"),
        counter("coord_sessions_upgraded", own.sessions_upgraded, "sessions that were local"),
        counter("coord_requests", own.requests, "requests of sessions"),
        counter("coord_answers", own.answers, "callbacks that have run"),
        counter("coord_events", own.events, "events of watchers"),
        counter("coord_polls", own.polls, "polls"),
        counter("coord_polls_late", own.polls_late, "polls later than half of the silence"),
        counter("coord_flushes", own.flushes, "flushes"),
        counter("coord_flushes_slow", own.flushes_slow, "durable as late as that"),
        counter("coord_calls", own.calls, "calls from outside"),
    };
    const Metric leaders[] = {
        counter("coord_proposals", lead.proposals, "transactions numbered as leader"),
        counter("coord_requests_ignored", lead.requests_ignored, "repeated or out of turn"),
        counter("coord_retransmissions", lead.retransmissions, "streams that went back"),
        counter("coord_snapshots_sent", lead.snapshots_sent, "snapshots for learners"),
        counter("coord_sessions_expired", lead.sessions_expired, "sessions that it ended"),
        counter("coord_reaps", lead.reaps, "removals of what goes by itself"),
        counter("coord_admissions", lead.admissions, "changes of the table of voters"),
        counter("coord_refusals", lead.refusals, "lives of replicas refused"),
    };
    const Metric zookeepers[] = {
        counter("zk_packets_received", own.requests, "as coord_requests"),
        counter("zk_packets_sent", own.answers, "as coord_answers"),
        counter("zk_proposal_count", lead.proposals, "as coord_proposals"),
        counter("zk_commit_count", own.applied, "as coord_applied"),
        counter("zk_snap_count", lead.snapshots_sent, "as coord_snapshots_sent"),
        counter("zk_looking_count", own.elections, "as coord_elections"),
        counter("zk_stale_sessions_expired", lead.sessions_expired, "as coord_sessions_expired"),
    };
    static_assert(sizeof replicas / sizeof replicas[0] == sizeof own / sizeof own.polls, "");
    static_assert(sizeof leaders / sizeof leaders[0] == sizeof lead / sizeof lead.reaps, "");
    for (const Metric& metric : zookeepers) visit(metric);
    for (const Metric& metric : replicas) visit(metric);
    for (const Metric& metric : leaders) visit(metric);
}

void Replica::visit_metrics(const Callback<void(const Metric&)>& visit) const {
    visit_gauges(visit);
    visit_counters(visit);
}

COORD_RARE
Bytes Replica::describe_role() const {
    Bytes out;
    detail::Prose prose(out);
    const ReplicaStatus now = status();
    prose.text("replica ").number(options_.id.value).text(": ").text(name(role_));
    if (is_learner()) prose.text(" ").number(now.leader.value);
    prose.text(now.serving ? ", serves" : ", does not serve");
    if (started_) prose.text(", for ").seconds(now_ - role_since_);
    if (role_ == Role::leading && !leader_.is_established()) prose.text(", not established yet");
    if (role_ == Role::looking && election_.candidate() != PeerId{}) {
        prose.text(", votes for ").number(election_.candidate().value);
    }
    prose.text("\n  why      ").text(*reason_ == 0 ? "it has not been polled yet" : reason_);
    if (*damage_ != 0) prose.text("; it has started over: ").text(damage_);
    return out;
}

COORD_RARE
Bytes Replica::describe() const {
    Bytes out = describe_role();
    detail::Prose prose(out);
    const ReplicaStatus now = status();
    prose.text("\n  epoch    ").number(now.epoch).text(", accepted ").number(now.accepted_epoch);
    prose.text("\n  log      last ").zxid(now.last).text(", durable ").zxid(now.durable);
    prose.text(", committed ").zxid(now.committed).text(", applied ").zxid(now.applied);
    prose.text("\n  state    ").count(now.nodes, "node", "nodes").text(", digest ");
    prose.hex(now.digest).text(", snapshot of ").zxid(log_.snapshot_position().zxid);
    prose.text("\n  storage  ").hex(now.storage);
    prose.text(now.admitted ? ", counts" : ", does not count").text(now.full ? ", full" : "");
    prose.text(", flush behind by ").seconds(now.flush_lag);
    prose.text(", longest ").seconds(now.flush_longest);
    prose.text("\n  sessions ").number(now.sessions).text(", held here ");
    prose.number(sessions_.size() + idle_.size()).text(", local ").number(now.local_sessions);
    prose.text("; ").count(requests_waiting_, "request waits, ", "requests wait, ");
    prose.count(openings_.size(), "opening, ", "openings, ");
    prose.count(now.watches, "watcher", "watchers");
    prose.text("\n  polls    ").number(counters_.polls).text(", longest gap ");
    prose.seconds(now.poll_gap_longest).text(", ").number(counters_.polls_late).text(" late\n");
    if (role_ != Role::leading) return out;
    prose.text("  voters   ").number(detail::count_bits(leader_.voters_in_step(now_)));
    prose.text(" of ").number(voters_.size()).text(" in step; ");
    prose.count(now.observers, "observer\n", "observers\n");
    leader_.visit_peers(now_, detail::observers_shown, [&](const PeerState& peer) {
        const bool is_silent = now_ - peer.heard_at > options_.timing.silence;
        const bool is_known = peer.heard_at.ns > detail::long_ago.ns;
        prose.text(peer.is_voter ? "    voter " : "    observer ").number(peer.id.value);
        prose.text(peer.in_step ? ": in step" : peer.fetching ? ": fetches" : ": not in step");
        prose.text(", durable ").zxid(peer.acked).text(", ");
        prose.count(log_.count_after(peer.acked), "entry behind", "entries behind");
        if (peer.is_voter && !peer.counts) prose.text(", does not count");
        if (is_silent && is_known) prose.text(", silent for ").seconds(now_ - peer.heard_at);
        if (!is_known) prose.text(", gone, or never heard");
        prose.text("\n");
    });
    return out;
}

COORD_RARE
Bytes Replica::state_json() const {
    Bytes out;
    detail::Json json(out);
    const ReplicaStatus now = status();
    json.open(nullptr, '{');
    json.number("id", options_.id.value), json.hex("ensemble", options_.ensemble);
    json.text("role", name(role_)), json.truth("serving", now.serving);
    json.number("leader", now.leader.value);
    json.text("reason", now.reason), json.text("damage", now.damage);
    json.number("epoch", now.epoch), json.number("accepted_epoch", now.accepted_epoch);
    json.hex("last", now.last.value), json.hex("durable", now.durable.value);
    json.hex("committed", now.committed.value), json.hex("applied", now.applied.value);
    json.hex("snapshot", log_.snapshot_position().zxid.value);
    json.hex("digest", now.digest), json.hex("storage", now.storage);
    json.truth("admitted", now.admitted), json.truth("full", now.full);
    json.open("voters", '[');
    for (std::size_t i = 0; i < voters_.size(); i++) json.number(nullptr, voters_[i].value);
    json.close(']');
    json.open("learners", '[');  // of the observers the first ones
    const auto show = [&](const PeerState& peer) {
        json.open(nullptr, '{');
        json.number("id", peer.id.value), json.truth("voter", peer.is_voter);
        json.truth("counts", peer.counts), json.truth("in_step", peer.in_step);
        json.truth("fetching", peer.fetching);
        json.hex("received", peer.received.value), json.hex("acked", peer.acked.value);
        const bool is_known = peer.heard_at.ns > detail::long_ago.ns;
        if (is_known) json.number("silent_ms", detail::ms_of(now_ - peer.heard_at));
        json.close('}');
    };
    if (role_ == Role::leading) leader_.visit_peers(now_, detail::observers_shown, show);
    json.close(']');
    json.open("metrics", '{');
    visit_metrics([&](const Metric& metric) { json.number(metric.name, metric.value); });
    json.close('}');
    json.close('}');
    return out;
}

COORD_RARE
void Replica::log_line(LogCode code, LogLevel level, BytesView text) {
    COORD_ASSERT(observer_ != nullptr && text.find('\n') == BytesView::npos);
    observer_->on_log(options_.id, LogLine{code, level, now_, text});
}

COORD_RARE
void Replica::tell_role(PeerId leader) {
    role_since_ = now_;
    if (observer_ == nullptr) return;
    observer_->on_role(options_.id, role_, leader, 0);
    Bytes text;
    detail::Prose prose(text);
    Logged& told = *logged_;
    if (told.is_trying && role_ != Role::leading) {
        prose.text("has not become the leader: ").text(reason_);
        log_line(LogCode::not_established, LogLevel::warning, text);
        text.clear();
    }
    told.is_trying = role_ == Role::leading;
    told.serves = false, told.in_step = 0, told.observers = 0, told.look_at = now_;
    const LogLevel level = started_ ? LogLevel::warning : LogLevel::info;
    switch (role_) {
        case Role::looking:
            prose.text("looks for a leader: ").text(reason_);
            return log_line(LogCode::looks, level, text);
        case Role::leading: return log_line(LogCode::leads, LogLevel::info, "tries to lead");
        case Role::following:
            prose.text("follows ").number(leader.value);
            return log_line(LogCode::follows, LogLevel::info, text);
        case Role::observing:
            prose.text("observes ").number(leader.value);
            return log_line(LogCode::observes, LogLevel::info, text);
        case Role::failed:
            prose.text("has failed, and does nothing any more: ").text(reason_);
            return log_line(LogCode::failed, LogLevel::error, text);
    }
}

COORD_RARE
void Replica::log_established() {
    COORD_ASSERT(leader_.is_established() && logged_->is_trying);
    logged_->is_trying = false;
    Bytes text;
    detail::Prose(text).text("leads epoch ").number(leader_.epoch()).text(", committed up to ")
        .zxid(leader_.committed());
    log_line(LogCode::established, LogLevel::info, text);
}

// The first of a flood, and then how many more there were, now and then.
void Replica::log_count(LogCode code, std::size_t place, std::uint64_t count, const char* what) {
    Logged::Flood& told = logged_->floods[place];
    COORD_ASSERT(count >= told.count);
    if (count == told.count || (told.count > 0 && now_ - told.at < log_repeat)) return;
    Bytes text;
    detail::Prose(text).text(what).text(": ").number(count - told.count).text(" more, ")
        .number(count).text(" in all");
    told.count = count, told.at = now_;
    log_line(code, LogLevel::warning, text);
}

// What is counted is told at once; what goes by time, or is asked of others, a little later: most
// polls have nothing new, and cost a sum.
void Replica::log_news() {
    const ReplicaCounters& own = counters_;
    const std::uint64_t sum =
        own.dropped_corrupt + own.dropped_foreign + own.dropped_overflow + own.flushes_slow +
        own.polls_late + own.over_quota + own.requests_refused + own.snapshots_taken +
        own.snapshots_given_up + own.snapshots_installed + own.dropped_unsealed +
        own.dropped_replayed + (was_serving_ ? 1u << 31 : 0u);
    if (sum == logged_->sum && now_ < logged_->look_at) return;
    logged_->sum = sum, logged_->look_at = now_ + options_.timing.heartbeat / 2;
    log_all();
}

void Replica::log_all() {
    log_storage();
    log_count(LogCode::dropped_corrupt, 0, counters_.dropped_corrupt, "messages do not decode");
    log_count(LogCode::dropped_foreign, 1, counters_.dropped_foreign,
              "messages of another ensemble, or for another replica");
    log_count(LogCode::dropped_overflow, 2, counters_.dropped_overflow,
              "messages dropped, since too many came between two polls");
    log_count(LogCode::dropped_unsealed, 6, counters_.dropped_unsealed,
              "messages without a right seal");
    log_count(LogCode::dropped_replayed, 7, counters_.dropped_replayed,
              "messages sealed for another life, or come twice");
    log_count(LogCode::flush_slow, 3, counters_.flushes_slow, "the disk was slow to flush");
    log_count(LogCode::poll_late, 4, counters_.polls_late, "polls came late");
    log_count(LogCode::over_quota, 5, counters_.over_quota, "writes passed a soft quota");
    Logged& told = *logged_;
    if (role_ == Role::leading && leader_.is_established()) log_peers();
    const bool serves = is_learner() && is_serving();
    if (serves && !told.serves) {
        Bytes text;
        detail::Prose(text).text("is in step with ").number(learner_.leader().value)
            .text(", and serves, in epoch ").number(learner_.epoch());
        log_line(LogCode::in_step, LogLevel::info, text);
    }
    told.serves = serves;
}

void Replica::log_storage() {
    Logged& told = *logged_;
    Bytes text;
    detail::Prose prose(text);
    if (*damage_ != 0 && !told.is_damage_told) {
        prose.text("the storage is damaged, and is begun anew: ").text(damage_);
        log_line(LogCode::storage_damaged, LogLevel::error, text);
    }
    told.is_damage_told = *damage_ != 0;
    if (counters_.snapshots_taken > told.snapshots_taken) {
        text.clear();
        prose.text("has a snapshot of ").zxid(log_.snapshot_position().zxid).text(", of ");
        prose.number(log_.snapshot_bytes()).text(" bytes");
        log_line(LogCode::snapshot_taken, LogLevel::info, text);
    }
    told.snapshots_taken = counters_.snapshots_taken;
    if (counters_.snapshots_given_up > told.snapshots_given_up) {
        log_line(LogCode::snapshot_given_up, LogLevel::warning, "a snapshot was given up");
    }
    told.snapshots_given_up = counters_.snapshots_given_up;
    if (role_ == Role::failed) return;
    const bool is_full = !log_.has_room() || learner_.waits_for_space();
    if (is_full != told.is_full) {
        log_line(is_full ? LogCode::storage_full : LogCode::storage_has_room,
                 is_full ? LogLevel::error : LogLevel::info,
                 is_full ? "the storage is full: what grows waits" : "the storage has room again");
    }
    told.is_full = is_full;
    const bool admitted = is_admitted(machine_->voters());
    if (admitted && !told.is_admitted) {
        log_line(LogCode::admitted, LogLevel::info, "its storage counts");
    }
    told.is_admitted = admitted;
}

void Replica::log_peers() {
    Logged& told = *logged_;
    const std::uint64_t in_step = leader_.voters_in_step(now_);
    Bytes text;
    if (in_step != told.in_step) {
        leader_.visit_peers(now_, 0, [&](const PeerState& peer) {
            const bool was = (told.in_step & voters_.bit(peer.id)) != 0;
            if (peer.in_step == was) return;
            text.clear();
            detail::Prose(text).number(peer.id.value).text(
                peer.in_step ? " is in step" : peer.counts ? " is silent, or not in step"
                                                           : " has another storage now");
            log_line(peer.in_step ? LogCode::peer_in_step : LogCode::peer_silent,
                     peer.in_step ? LogLevel::info : LogLevel::warning, text);
        });
    }
    told.in_step = in_step;
    const LeaderCounters& lead = leader_.counters();
    if (lead.admissions > told.admissions) {
        log_line(LogCode::admits, LogLevel::info, "changes the table of voters' storages");
    }
    if (lead.refusals > told.refusals) {
        log_line(LogCode::peer_refused, LogLevel::error, "has refused a replica, with proof");
    }
    told.admissions = lead.admissions, told.refusals = lead.refusals;
    if (leader_.observers() == told.observers) return;
    told.observers = leader_.observers();
    text.clear();
    detail::Prose(text).count(told.observers, "observer", "observers");
    log_line(LogCode::observers_changed, LogLevel::info, text);
}

COORD_RARE
void Replica::audit() const {
    machine_->audit();
    log_.audit();
    history_->audit();
    if (role_ == Role::leading) leader_.audit(*machine_);
    COORD_ASSERT(role_ == Role::failed || machine_->applied() <= committed_);  // R2
    COORD_ASSERT(log_.snapshot_position().zxid <= machine_->applied() || role_ == Role::failed);
    std::size_t busy = 0, waiting = 0;
    for (const auto& [id, session] : sessions_) {
        waiting += session.pending.size();
        COORD_ASSERT(session.sent <= session.pending.size());
        COORD_ASSERT(!session.is_blocked || session.sent > 0 || role_ == Role::failed);  // R9
        COORD_ASSERT(session.is_local == session.is_busy);  // R14
        busy += session.is_busy ? 1u : 0u;
        const SessionRecord* const record = machine_->find_session(id);
        COORD_ASSERT(record == nullptr || !session.is_local || role_ == Role::failed);  // Z14
        if (session.is_local) continue;
        COORD_ASSERT(record != nullptr || role_ == Role::failed);
        COORD_ASSERT(record == nullptr || is_held(session, record->cxid >> cxid_bits));  // R10
    }
    COORD_ASSERT(busy == busy_ && waiting == requests_waiting_);
    for (const auto& [id, session] : idle_) {
        COORD_ASSERT(session.is_local && !session.is_busy && session.pending.empty());  // R14
        COORD_ASSERT(!session.is_upgraded && sessions_.find(id) == sessions_.end());
    }
}

// =================================================================================================
// Part Two, chapter 13: Session
// =================================================================================================

namespace detail {

// What handles to a session share: one listener to the replica, and those behind it. The replica
// keeps a listener for the session's life; here one whose owner is gone is forgotten.
class StateListeners {
public:
    using Listener = Callback<bool(const SessionState*)>;

    void add(Listener&& listener) {
        for (std::size_t i = listeners_.size(); i > 0; i--) {
            if (!listeners_[i - 1](nullptr)) listeners_.erase(i - 1);
        }
        listeners_.push() = std::move(listener);
    }

    // Listeners that are added meanwhile are not called this time; they go behind the others.
    void tell(SessionState state) {
        COORD_ASSERT(!is_telling_);  // C3: there is no poll within poll
        is_telling_ = true;
        Ring<Listener> told = std::move(listeners_);
        for (std::size_t i = 0; i < told.size(); i++) told[i](&state);
        for (; !listeners_.empty(); listeners_.pop()) {
            told.push() = std::move(listeners_.front());
        }
        listeners_ = std::move(told);
        is_telling_ = false;
    }

    bool is_registered = false;  // with the replica
    std::uint64_t numbers = 0;   // given by next_number; the upper bits are its holder's count

private:
    Ring<Listener> listeners_;
    bool is_telling_ = false;
};

// What the copies of a handle share. Those below a path, and with a level, share the listeners.
struct Handle {
    struct Guard {
        Bytes path;  // as the replica knows it
        Zxid czxid;
    };
    Shared<StateListeners> listeners;
    Bytes root;  // what its paths are below; empty: nothing
    Zxid least;  // see Request
    std::vector<Guard> guards;
};

// A request of that kind, its callback passed on as it is: nothing is allocated on the way.
static Request request_of(Request::Kind kind, BytesView path, Completion done) {
    Request request;
    request.kind = kind;
    request.path = path;
    request.done = std::move(done);
    return request;
}

}  // namespace detail

Session::Session(Replica& replica, SessionId id)
    : Session(replica, id, {detail::share(detail::StateListeners()), {}, {}, {}}) {
    const SessionRecord* const record = replica.machine().find_session(id);
    if (record != nullptr) handle_->listeners->numbers = record->cxid >> cxid_bits << cxid_bits;
}

Session::Session(Replica& replica, SessionId id, detail::Handle&& handle)
    : replica_(&replica), id_(id), handle_(detail::share(std::move(handle))) {}

static OnOpened session_to(Replica& replica, OnSession&& done) {
    return [&replica, done = std::move(done)](Result<SessionId> opened) {
        if (!done) return;
        if (!opened) return done(opened.error());
        COORD_ASSERT(opened->value != 0);
        done(Session(replica, *opened));
    };
}

void Session::open(Replica& replica, const SessionOptions& options, OnSession done) {
    replica.open_session(options, session_to(replica, std::move(done)));
}

void Session::attach(Replica& replica, SessionId id, const SessionPassword& password,
                     OnSession done) {
    replica.attach_session(id, password, session_to(replica, std::move(done)));
}

void Session::ask(Request&& request) const {
    request.least = handle_->least;
    request.holding = holding();
    if (!handle_->root.empty()) return ask_below(std::move(request));
    ask_guarded(std::move(request));
}

// A write that is guarded is a part of a multi, behind its guards; the answer does not show it.
void Session::ask_guarded(Request&& request) const {
    const std::vector<detail::Handle::Guard>& guards = handle_->guards;
    const bool is_free = !detail::is_write(request.kind) || request.kind == Request::Kind::close ||
                         request.kind == Request::Kind::add_auth;
    if (guards.empty() || is_free) return replica_->submit(id_, std::move(request));
    std::vector<Op> parts;
    parts.reserve(guards.size() + request.parts.size() + 1);
    for (const auto& guard : guards) parts.push_back(Op::guard(guard.path, guard.czxid));
    if (request.kind == Request::Kind::multi) {
        for (const Op& part : request.parts) parts.push_back(part);
    } else {
        parts.push_back(detail::op_of(request));
        request.kind = Request::Kind::multi;
        request.path = request.data = BytesView();
    }
    request.parts = std::move(parts);
    request.guards = guards.size();
    COORD_ASSERT(request.guards > 0 && request.guards <= request.parts.size());  // C6
    replica_->submit(id_, std::move(request));
}

void Session::ask_part(const Op& part, Completion done) const {
    Request request = detail::request_of(Request::Kind::multi, {}, std::move(done));
    request.parts = std::vector<Op>(1, part);
    ask(std::move(request));
}

// What is no path must not become one by what stands before it: it stays what no handle may reach.
COORD_RARE
Session Session::below(BytesView path) const {
    if (path.empty() || path == "/") return *this;
    detail::Handle handle = *handle_;
    handle.root = is_valid_path(path) ? handle.root.append(path) : Bytes(path);
    return Session(*replica_, id_, std::move(handle));
}

// What is no path stays none, and refuses every write: see below.
COORD_RARE
Session Session::guarded_by(BytesView path, Zxid czxid) const {
    detail::Handle handle = *handle_;
    Bytes whole(path);
    if (is_valid_path(path)) whole = path == "/" ? handle.root : handle.root + whole;
    if (whole.empty() && path == "/") whole = "/";
    handle.guards.push_back({std::move(whole), czxid});
    return Session(*replica_, id_, std::move(handle));
}

COORD_RARE
Session Session::at_least(Zxid zxid) const {
    detail::Handle handle = *handle_;
    handle.least = zxid;
    return Session(*replica_, id_, std::move(handle));
}

namespace detail {

// Makes a path what the replica knows it as, in memory that is there already. One that is no path
// stays as it is, to be refused for that.
static void put_below(BytesView root, BytesView& path, bool is_begun, Bytes& memory) {
    if (!is_sound_path(path, is_begun)) return;
    const std::size_t start = memory.size();
    COORD_ASSERT(memory.capacity() - start >= root.size() + path.size());
    memory.append(root);
    if (path.size() > 1 || is_begun) memory.append(path);
    path = BytesView(memory).substr(start);
}

}  // namespace detail

void Session::ask_below(Request&& request) const {
    const Bytes& root = handle_->root;
    std::size_t room = root.size() + request.path.size();
    for (const Op& part : request.parts) room += root.size() + part.path.size();
    for (const Query& query : request.queries) room += root.size() + query.path.size();
    Bytes memory;  // the request's views are into it
    memory.reserve(room);
    const bool is_create = request.kind == Request::Kind::create;
    const bool has_path = request.kind != Request::Kind::add_auth;  // a scheme is none
    const bool is_numbered_path = is_create && is_sequential(request.mode);
    if (has_path) detail::put_below(root, request.path, is_numbered_path, memory);
    for (Op& part : request.parts) {
        const bool is_numbered = detail::is_numbered(part.code, part.mode);
        detail::put_below(root, part.path, is_numbered, memory);
    }
    for (Query& query : request.queries) {
        const bool is_begun = query.kind == Query::Kind::ephemerals;
        detail::put_below(root, query.path, is_begun, memory);
        if (is_begun && !query.page.after.empty()) query.page.after.insert(0, root);
    }
    request.root_bytes = root.size();
    if (request.watcher) {
        request.watcher = [bytes = root.size(), watcher = request.watcher](WatchEvent event) {
            detail::cut_root(bytes, event.path);
            watcher(event);
        };
    }
    ask_guarded(std::move(request));
}

void Session::create(BytesView path, BytesView data, CreateMode mode, Duration ttl,
                     const Acl& acl, OnCreated done) const {
    Request request = detail::request_of(Request::Kind::create, path, std::move(done));
    request.data = data;
    request.mode = mode, request.ttl = ttl;
    request.acl = acl;
    ask(std::move(request));
}

void Session::create(BytesView path, BytesView data, CreateMode mode, Duration ttl,
                     OnCreated done) const {
    create(path, data, mode, ttl, Acl(), std::move(done));
}

void Session::create(BytesView path, BytesView data, CreateMode mode, OnCreated done) const {
    create(path, data, mode, Duration{}, std::move(done));
}

void Session::create(BytesView path, BytesView data, OnCreated done) const {
    create(path, data, CreateMode::persistent, std::move(done));
}

void Session::set(BytesView path, BytesView data, std::int32_t version, OnStat done) const {
    Request request = detail::request_of(Request::Kind::set, path, std::move(done));
    request.data = data;
    request.version = version;
    ask(std::move(request));
}

void Session::set(BytesView path, BytesView data, OnStat done) const {
    set(path, data, any_version, std::move(done));
}

void Session::remove(BytesView path, std::int32_t version, OnDone done) const {
    Request request = detail::request_of(Request::Kind::remove, path, std::move(done));
    request.version = version;
    ask(std::move(request));
}

void Session::remove(BytesView path, OnDone done) const {
    remove(path, any_version, std::move(done));
}

void Session::create_or_set(BytesView path, BytesView data, CreateMode mode,
                            OnCreated done) const {
    ask_part(Op::create_or_set(path, data, mode), std::move(done));
}

void Session::create_or_set(BytesView path, BytesView data, OnCreated done) const {
    create_or_set(path, data, CreateMode::persistent, std::move(done));
}

COORD_RARE
void Session::create_with_parents(BytesView path, BytesView data, CreateMode mode,
                                  CreateMode parents, OnCreated done) const {
    ask_part(Op::create_with_parents(path, data, mode, parents), std::move(done));
}

void Session::create_with_parents(BytesView path, BytesView data, OnCreated done) const {
    ask_part(Op::create_with_parents(path, data), std::move(done));
}

COORD_RARE
void Session::remove_all(BytesView path, OnDone done) const {
    ask_part(Op::remove_all(path), std::move(done));
}

COORD_RARE
void Session::take_over(BytesView path, BytesView data, SessionId earlier,
                        const SessionPassword& password, OnCreated done) const {
    ask_part(Op::take_over(path, data, earlier, password), std::move(done));
}

COORD_RARE
void Session::set_acl(BytesView path, const Acl& acl, std::int32_t aversion, OnStat done) const {
    Request request = detail::request_of(Request::Kind::set_acl, path, std::move(done));
    request.acl = acl, request.version = aversion;
    ask(std::move(request));
}

COORD_RARE
void Session::set_acl(BytesView path, const Acl& acl, OnStat done) const {
    set_acl(path, acl, any_version, std::move(done));
}

COORD_RARE
void Session::add_auth(BytesView scheme, BytesView credential, OnDone done) const {
    Request request = detail::request_of(Request::Kind::add_auth, scheme, std::move(done));
    request.data = credential;
    ask(std::move(request));
}

COORD_RARE
void Session::get_acl(BytesView path, OnAcl done) const {
    ask(detail::request_of(Request::Kind::get_acl, path, std::move(done)));
}

COORD_RARE
void Session::whoami(OnAcl done) const {
    ask(detail::request_of(Request::Kind::whoami, {}, std::move(done)));
}

void Session::multi(std::vector<Op> parts, OnMulti done) const {
    Request request = detail::request_of(Request::Kind::multi, {}, std::move(done));
    request.parts = std::move(parts);
    ask(std::move(request));
}

void Session::exists(BytesView path, OnStat done) const { exists(path, {}, std::move(done)); }

void Session::exists(BytesView path, Watcher watcher, OnStat done) const {
    Request request = detail::request_of(Request::Kind::exists, path, std::move(done));
    request.watcher = std::move(watcher);
    ask(std::move(request));
}

void Session::get(BytesView path, OnData done) const { get(path, {}, std::move(done)); }

void Session::get(BytesView path, Watcher watcher, OnData done) const {
    Request request = detail::request_of(Request::Kind::get, path, std::move(done));
    request.watcher = std::move(watcher);
    ask(std::move(request));
}

void Session::children(BytesView path, OnChildren done) const {
    children(path, Page{}, Watcher{}, std::move(done));
}

void Session::children(BytesView path, Watcher watcher, OnChildren done) const {
    children(path, Page{}, std::move(watcher), std::move(done));
}

void Session::children(BytesView path, const Page& page, OnChildren done) const {
    children(path, page, Watcher{}, std::move(done));
}

void Session::children(BytesView path, const Page& page, Watcher watcher, OnChildren done) const {
    Request request = detail::request_of(Request::Kind::children, path, std::move(done));
    request.page = page;
    request.watcher = std::move(watcher);
    ask(std::move(request));
}

void Session::read(const Query& query, OnFound done) const {
    Request request = detail::request_of(Request::Kind::read, {}, std::move(done));
    request.queries = std::vector<Query>(1, query);
    ask(std::move(request));
}

void Session::multi_read(std::vector<Query> queries, OnMultiRead done) const {
    Request request = detail::request_of(Request::Kind::read, {}, std::move(done));
    request.queries = std::move(queries);
    ask(std::move(request));
}

void Session::add_watch(BytesView path, AddWatchMode mode, Watcher watcher, OnDone done) const {
    Request request = detail::request_of(Request::Kind::add_watch, path, std::move(done));
    const bool is_recursive = mode == AddWatchMode::persistent_recursive;
    request.watcher_type = is_recursive ? WatcherType::persistent_recursive
                           : mode == AddWatchMode::persistent ? WatcherType::persistent
                                                              : WatcherType{};  // refused
    request.watcher = std::move(watcher);
    ask(std::move(request));
}

COORD_RARE
void Session::watch_since(Zxid since, Watched what, BytesView path, Watcher watcher,
                          OnDone done) const {
    Request request = detail::request_of(Request::Kind::watch_since, path, std::move(done));
    request.since = since, request.watched = what;
    request.watcher = std::move(watcher);
    ask(std::move(request));
}

void Session::remove_watches(BytesView path, WatcherType type, OnDone done) const {
    Request request = detail::request_of(Request::Kind::remove_watches, path, std::move(done));
    request.watcher_type = type;
    ask(std::move(request));
}

// What is no path stays as it is, to be refused for that (C5).
COORD_RARE
Subscription Session::subscribe_with(BytesView path, const SubscribeOptions& options,
                                     Callback<void()>&& wake, OnChange&& each) const {
    const Bytes& root = handle_->root;
    detail::Shared<detail::Subscriber> subscriber = detail::share(detail::Subscriber());
    const bool is_below = !root.empty() && is_valid_path(path);
    if (is_below) subscriber->path = root, subscriber->root_bytes = root.size();
    if (!is_below || path.size() > 1) subscriber->path.append(path);
    subscriber->session = id_, subscriber->holding = holding();
    subscriber->options = options;
    subscriber->wake = std::move(wake), subscriber->each = std::move(each);
    replica_->subscribe(*subscriber);
    return Subscription(std::move(subscriber));
}

Subscription Session::subscribe(BytesView path, const SubscribeOptions& options,
                                Callback<void()> wake) const {
    return subscribe_with(path, options, std::move(wake), {});
}

Subscription Session::on_changes(BytesView path, const SubscribeOptions& options,
                                 OnChange each) const {
    return subscribe_with(path, options, {}, std::move(each));
}

void Session::sync(OnDone done) const {
    ask(detail::request_of(Request::Kind::sync, {}, std::move(done)));
}

void Session::close(OnDone done) const {
    ask(detail::request_of(Request::Kind::close, {}, std::move(done)));
}

// The replica is asked when the first listener comes.
void Session::listen(Callback<bool(const SessionState*)> listener) const {
    const detail::Shared<detail::StateListeners>& listeners = handle_->listeners;
    if (!listeners->is_registered) {
        listeners->is_registered = true;
        const OnState tell = [shared = listeners](SessionState state) { shared->tell(state); };
        replica_->on_session_state(id_, tell, holding());
    }
    listeners->add(std::move(listener));
}

COORD_RARE
void Session::on_state(OnState listener) const {
    const auto call = [listener](const SessionState* state) {
        if (state != nullptr) listener(*state);
        return true;
    };
    if (listener) listen(call);
}

std::uint64_t Session::next_number() const { return handle_->listeners->numbers += 1; }

COORD_RARE
std::vector<Unresolved> Session::unresolved() const {
    std::vector<Unresolved> all = replica_->unresolved(id_, holding());
    const Bytes& root = handle_->root;
    for (Unresolved& one : all) {
        const bool is_at = one.path.compare(0, root.size(), root) == 0;
        const bool is_below = is_at && (one.path.size() == root.size() ||
                                        one.path[root.size()] == '/');
        if (root.empty() || one.path.empty()) continue;
        is_below ? detail::cut_root(root.size(), one.path) : one.path.clear();  // C5
    }
    return all;
}

std::uint64_t Session::holding() const { return handle_->listeners->numbers >> cxid_bits; }

namespace detail {

Waiting::Waiting(void* place) : state(share(State{place})) {}

void* Waiting::take(State& state) {
    COORD_ASSERT(!state.is_answered);  // C1
    state.is_answered = true;
    return state.place;
}

void Waiting::pump_until_answered(const Pump& pump) const {
    bool going_on = bool(pump);  // an empty one has given up before it began
    while (going_on && !state->is_answered) going_on = pump();
}

}  // namespace detail

Result<Session> Sync::open(Replica& replica, const SessionOptions& options, const Pump& pump) {
    return wait<Session>(replica, pump, [&](OnSession done) {
        Session::open(replica, options, std::move(done));
    });
}

Result<Session> Sync::attach(Replica& replica, SessionId id, const SessionPassword& password,
                             const Pump& pump) {
    return wait<Session>(replica, pump, [&](OnSession done) {
        Session::attach(replica, id, password, std::move(done));
    });
}

Result<Created> Sync::create(BytesView path, BytesView data, CreateMode mode, Duration ttl,
                             const Acl& acl) const {
    return wait<Created>([&](OnCreated done) {
        session_.create(path, data, mode, ttl, acl, std::move(done));
    });
}

COORD_RARE
Result<Stat> Sync::set_acl(BytesView path, const Acl& acl, std::int32_t aversion) const {
    return wait<Stat>([&](OnStat done) {
        session_.set_acl(path, acl, aversion, std::move(done));
    });
}

COORD_RARE
Result<NodeAcl> Sync::get_acl(BytesView path) const {
    return wait<NodeAcl>([&](OnAcl done) { session_.get_acl(path, std::move(done)); });
}

COORD_RARE
Result<void> Sync::add_auth(BytesView scheme, BytesView credential) const {
    return wait<void>([&](OnDone done) { session_.add_auth(scheme, credential, std::move(done)); });
}

COORD_RARE
Result<NodeAcl> Sync::whoami() const {
    return wait<NodeAcl>([&](OnAcl done) { session_.whoami(std::move(done)); });
}

Result<Stat> Sync::set(BytesView path, BytesView data, std::int32_t version) const {
    return wait<Stat>([&](OnStat done) { session_.set(path, data, version, std::move(done)); });
}

Result<void> Sync::remove(BytesView path, std::int32_t version) const {
    return wait<void>([&](OnDone done) { session_.remove(path, version, std::move(done)); });
}

Sync Sync::guarded_by(BytesView path, Zxid czxid) const {
    return {session_.guarded_by(path, czxid), pump_};
}

Result<Created> Sync::create_or_set(BytesView path, BytesView data, CreateMode mode) const {
    return wait<Created>([&](OnCreated done) {
        session_.create_or_set(path, data, mode, std::move(done));
    });
}

Result<Created> Sync::create_with_parents(BytesView path, BytesView data, CreateMode mode,
                                          CreateMode parents) const {
    return wait<Created>([&](OnCreated done) {
        session_.create_with_parents(path, data, mode, parents, std::move(done));
    });
}

Result<void> Sync::remove_all(BytesView path) const {
    return wait<void>([&](OnDone done) { session_.remove_all(path, std::move(done)); });
}

Result<Created> Sync::take_over(BytesView path, BytesView data, SessionId earlier,
                                const SessionPassword& password) const {
    return wait<Created>([&](OnCreated done) {
        session_.take_over(path, data, earlier, password, std::move(done));
    });
}

Multi Sync::multi(std::vector<Op> parts) const {
    const Result<Multi> result = wait<Multi>([&](const Callback<void(Result<Multi>)>& done) {
        session_.multi(std::move(parts), [done](const Multi& multi) { done(multi); });
    });
    return result ? *result : Multi{result.error(), {}};
}

Result<Stat> Sync::exists(BytesView path, Watcher watcher) const {
    return wait<Stat>([&](OnStat done) {
        session_.exists(path, std::move(watcher), std::move(done));
    });
}

Result<Data> Sync::get(BytesView path, Watcher watcher) const {
    return wait<Data>([&](OnData done) {
        session_.get(path, std::move(watcher), std::move(done));
    });
}

Result<Children> Sync::children(BytesView path, const Page& page, Watcher watcher) const {
    return wait<Children>([&](OnChildren done) {
        session_.children(path, page, std::move(watcher), std::move(done));
    });
}

Result<Found> Sync::read(const Query& query) const {
    return wait<Found>([&](OnFound done) { session_.read(query, std::move(done)); });
}

Result<MultiRead> Sync::multi_read(std::vector<Query> queries) const {
    return wait<MultiRead>([&](OnMultiRead done) {
        session_.multi_read(std::move(queries), std::move(done));
    });
}

Result<void> Sync::add_watch(BytesView path, AddWatchMode mode, Watcher watcher) const {
    return wait<void>([&](OnDone done) {
        session_.add_watch(path, mode, std::move(watcher), std::move(done));
    });
}

Result<void> Sync::watch_since(Zxid since, Watched what, BytesView path, Watcher watcher) const {
    return wait<void>([&](OnDone done) {
        session_.watch_since(since, what, path, std::move(watcher), std::move(done));
    });
}

Result<void> Sync::remove_watches(BytesView path, WatcherType type) const {
    return wait<void>([&](OnDone done) {
        session_.remove_watches(path, type, std::move(done));
    });
}

Result<void> Sync::sync() const {
    return wait<void>([&](OnDone done) { session_.sync(std::move(done)); });
}

Result<std::vector<Change>> Sync::take(const Subscription& from, std::size_t most) const {
    if (session_.replica().is_polling()) return Errc::api_error;
    bool going_on = bool(pump_);
    while (going_on) {
        Result<std::vector<Change>> taken = from.take(most);
        if (!taken || !taken->empty()) return taken;
        going_on = pump_();
    }
    return Errc::operation_timeout;
}

Result<void> Sync::close() const {
    return wait<void>([&](OnDone done) { session_.close(std::move(done)); });
}

// =================================================================================================
// Part Two, chapter 14: Recipes
// =================================================================================================

namespace detail {

// Those that are there already say node_exists, and whatever else is wrong the recipe's own node
// will say: the requests are executed in order.
COORD_RARE
static void create_parents(const Session& session, const Bytes& path, const Acl& acl) {
    for (std::size_t i = 1; i <= path.size(); i++) {
        const bool is_whole = i == path.size() || path[i] == '/';
        if (!is_whole || i == 1) continue;
        const BytesView parent = BytesView(path).substr(0, i);
        session.create(parent, {}, CreateMode::persistent, {}, acl, OnCreated());
    }
}

static Bytes child_path(const Bytes& path, BytesView node) {
    Bytes whole = path == "/" ? Bytes() : path;
    return whole.append("/").append(node);
}

enum class LockKind : std::uint8_t { exclusive, read, write };

// One acquisition, from its create to the removal of its node.
struct LockTurn {
    explicit LockTurn(LockKind that) : kind(that) {}
    LockKind kind;
    Bytes node;              // its name under the lock's path; empty until the create is answered
    Bytes next;              // the one that is to take its place, while that is asked for
    bool is_gone = false;    // meanwhile its node has gone
    Zxid czxid;              // of its node
    std::int64_t number = 0;
    std::uint64_t token = 0;
    bool is_over = false;    // nobody waits for it any more
    OnDone removed;          // of the release that ended it before its path was known
    // What the pages of the list have shown so far.
    bool is_listed = false;
    std::int64_t before_number = -1;
    Bytes before;            // the node right before it
};

// A lock apart from its handle, so that callbacks find it alive. Requests hold it, watchers and
// timers do not. Each callback belongs to a turn, and does nothing when that is over.
//
//     idle -> creating -> listing <-> waiting        (listing: also right after the create)
//                            |
//                         settling -> held           (any of them -> idle: the turn is over)
struct LockCore : std::enable_shared_from_this<LockCore> {
    enum class Phase : std::uint8_t { idle, creating, listing, waiting, settling, held };
    using Turn = std::shared_ptr<LockTurn>;
    static constexpr int create_attempts_max = 8;

    LockCore(Session handle, BytesView lock_path, const Acl& nodes_acl)
        : session(std::move(handle)), path(lock_path), acl(nodes_acl) {}

    void acquire(LockKind kind, bool is_one_try, OnGranted done);
    void downgrade(OnGranted done);
    void on_downgraded(const Turn& mine, const Multi& result);
    void on_own_gone(const Turn& mine);
    void acquire_for(LockKind kind, Duration duration, OnGranted done);
    void limit(Duration duration);
    void create_node(const Turn& mine, int attempts_left);
    void on_created(const Turn& mine, int attempts_left, const Result<Created>& created);
    void watch_own(const Turn& mine);
    void list(const Turn& mine, const Page& page);
    void on_list(const Turn& mine, const Result<Children>& page);
    void take_place(const Turn& mine);
    void wait_for(const Turn& mine);
    void on_before_gone(const Bytes& node);
    void settle(const Turn& mine);
    void on_state(SessionState state);
    void fail(Errc error);
    OnGranted end_turn(const OnDone& removed);
    void remove_node(const Turn& ended, const OnDone& removed);
    void remove_node_later(const Turn& ended, const OnDone& removed);
    void answer_later(OnGranted done, Errc error);
    Bytes path_of(BytesView node) const { return child_path(path, node); }
    bool is_certain(Time now) const;
    bool is_current(const Turn& mine) const { return !mine->is_over && mine == turn; }
    void audit() const;

    const Session session;
    const Bytes path;
    const Acl acl;          // of all that it creates
    std::shared_ptr<LockCore> self;  // itself, for its Lock; null once that is destroyed
    Phase phase = Phase::idle;
    Turn turn;              // null while idle
    bool is_try = false;    // lock_busy rather than wait
    OnGranted waiter;       // of acquire and downgrade; else empty
    OnLost lost;
    Bytes watched;          // whose end the watcher that is set will tell; of any turn
};

// Whether a turn that ends so has no node left that this session could remove.
static bool is_node_gone(Errc error) {
    return error == Errc::lock_lost || error == Errc::session_expired ||
           error == Errc::replica_failed;
}

// Of a write whose outcome nobody knows: how its session, or its replica, has ended says enough.
static Errc known_end(const Session& session, Errc error) {
    if (error != Errc::outcome_unknown) return error;
    if (session.replica().status().role == Role::failed) return Errc::replica_failed;
    const bool is_moved = session.state() == SessionState::moved;
    return is_moved ? Errc::session_moved : Errc::session_expired;
}

static constexpr BytesView read_mark = "__READ__";
static constexpr BytesView write_mark = "__WRIT__";
static_assert(read_mark.size() == write_mark.size(), "a name is as long for either");

static bool is_reader(BytesView node) {
    const std::size_t end = node.find_last_not_of("0123456789") + 1;  // 0 where there is none
    if (end < read_mark.size()) return false;
    return node.substr(end - read_mark.size(), read_mark.size()) == read_mark;
}

// FORMAT: a UUID of 36 characters, as Curator looks for: the session's id, which no other session
// of the ensemble has or had, and the session's number for the turn.
static Bytes new_uuid(const Session& session) {
    char digits[33];
    const unsigned long long high = session.id().value;
    const unsigned long long low = session.next_number();
    std::snprintf(digits, sizeof digits, "%016llx%016llx", high, low);
    const BytesView hex(digits, 32);
    Bytes uuid;
    uuid.append(hex.substr(0, 8)).append("-").append(hex.substr(8, 4)).append("-");
    uuid.append(hex.substr(12, 4)).append("-").append(hex.substr(16, 4)).append("-");
    return uuid.append(hex.substr(20));
}

static Bytes lock_node_prefix(const Session& session, LockKind kind) {
    Bytes prefix = "_c_" + new_uuid(session) + "-";
    if (kind == LockKind::exclusive) return prefix.append("lock-");
    return prefix.append(kind == LockKind::read ? read_mark : write_mark);
}

// FORMAT: the same name but for the mark (K5). So in the order of names none is between the two:
// whoever lists page by page, and came to the place of one before the change, comes to the other
// after it.
static Bytes reader_name(Bytes writer) {
    const std::size_t end = writer.find_last_not_of("0123456789") + 1;
    COORD_ASSERT(end > write_mark.size());
    COORD_ASSERT(writer.compare(end - write_mark.size(), write_mark.size(), write_mark) == 0);
    return writer.replace(end - write_mark.size(), write_mark.size(), read_mark);
}

void LockCore::audit() const {
    COORD_ASSERT((turn == nullptr) == (phase == Phase::idle));
    COORD_ASSERT(turn == nullptr || !turn->is_over);                                     // K1
    COORD_ASSERT(turn == nullptr || turn->node.empty() == (phase == Phase::creating));   // K1
    COORD_ASSERT(phase != Phase::held || turn->token != 0);                              // K2
    COORD_ASSERT(turn == nullptr || turn->next.empty() || phase == Phase::held);         // K5
    COORD_ASSERT(turn == nullptr || turn->token <= turn->czxid.value);                   // K5
    COORD_ASSERT(phase != Phase::waiting || watched == turn->before);                    // K3
}

COORD_RARE
void LockCore::acquire(LockKind kind, bool is_one_try, OnGranted done) {
    if (turn != nullptr || !is_valid_path(path)) {
        return answer_later(std::move(done), Errc::bad_arguments);
    }
    turn = Turn(new LockTurn(kind));
    phase = Phase::creating;
    is_try = is_one_try;
    waiter = std::move(done);
    create_node(turn, create_attempts_max);
    audit();
}

COORD_RARE
void LockCore::acquire_for(LockKind kind, Duration duration, OnGranted done) {
    const bool is_new = turn == nullptr;
    acquire(kind, false, std::move(done));
    if (is_new && turn != nullptr) limit(duration);
}

// Callbacks come inside poll, also for what a call has decided.
void LockCore::answer_later(OnGranted done, Errc error) {
    if (!done) return;
    session.at(session.now(), [weak = weak_from_this(), done = std::move(done), error] {
        const auto core = weak.lock();
        if (core && core->self != nullptr) done(error);
    });
}

bool LockCore::is_certain(Time now) const {
    const Time until = session.certain_until();
    return until != Time{} && now < until;
}

COORD_RARE
void LockCore::limit(Duration duration) {
    if (duration.ns > 0 && session.now().ns > never.ns - duration.ns) return;
    session.at(session.now() + duration, [weak = weak_from_this(), mine = turn] {
        const auto core = weak.lock();
        if (!core || !core->is_current(mine) || core->phase == Phase::held) return;
        core->fail(Errc::operation_timeout);
    });
}

// The request holds the core: the node is removed even where the lock has been destroyed.
COORD_RARE
void LockCore::create_node(const Turn& mine, int attempts_left) {
    COORD_ASSERT(attempts_left > 0);
    COORD_ASSERT(mine->node.empty());  // K1
    const auto on_answer = [core = shared_from_this(), mine, attempts_left](Result<Created> made) {
        core->on_created(mine, attempts_left - 1, made);
    };
    session.create(path_of(lock_node_prefix(session, mine->kind)), {},
                   CreateMode::ephemeral_sequential, {}, acl, on_answer);
}

COORD_RARE
void LockCore::on_created(const Turn& mine, int attempts_left, const Result<Created>& created) {
    if (created) {
        mine->node = node_name(created->path);
        mine->number = sequence_of(mine->node).value_or(0);
        mine->czxid = created->stat.czxid;
        mine->token = mine->czxid.value;
    }
    if (mine->is_over) {
        if (created) return remove_node(mine, mine->removed);  // K1
        const Errc end = known_end(session, created.error());
        const bool may_be_there = end == Errc::session_moved || end == Errc::replica_failed;
        if (mine->removed) mine->removed(may_be_there ? end : Errc::ok);
        return;
    }
    COORD_ASSERT(phase == Phase::creating && mine == turn);
    if (!created && created.error() == Errc::no_node && attempts_left > 0) {
        create_parents(session, path, acl);
        return create_node(mine, attempts_left);
    }
    if (!created) return fail(created.error());
    phase = Phase::listing;
    watch_own(mine);
    list(mine, Page{});
    audit();
}

// get rather than exists: it sets no watcher where the node has gone before it.
COORD_RARE
void LockCore::watch_own(const Turn& mine) {
    const Bytes node = mine->node;
    const auto on_event = [weak = weak_from_this(), mine, node](const WatchEvent& event) {
        const auto core = weak.lock();
        if (!core || !core->is_current(mine) || mine->node != node) return;
        if (event.type == EventType::deleted) return core->on_own_gone(mine);
        core->watch_own(mine);
    };
    const auto on_set = [core = shared_from_this(), mine, node](const Result<Data>& own) {
        if (own || !core->is_current(mine) || mine->node != node) return;
        if (own.error() == Errc::no_node) return core->on_own_gone(mine);
        core->fail(own.error());
    };
    session.get(path_of(node), on_event, on_set);
}

// Where another is to take its place, that answer will tell whether it did.
void LockCore::on_own_gone(const Turn& mine) {
    COORD_ASSERT(is_current(mine));
    if (mine->next.empty()) return fail(Errc::lock_lost);
    mine->is_gone = true;
}

COORD_RARE
void LockCore::list(const Turn& mine, const Page& page) {
    COORD_ASSERT(phase == Phase::listing && is_current(mine));
    if (page.after.empty()) {
        mine->is_listed = false, mine->before_number = -1, mine->before.clear();
    }
    session.children(path, page, [core = shared_from_this(), mine](const Result<Children>& names) {
        if (core->is_current(mine)) core->on_list(mine, names);
    });
}

// Pages may be of different moments: a node that appears meanwhile has a higher number than its
// own, and one that goes was not before it any more or is found gone by wait_for.
COORD_RARE
void LockCore::on_list(const Turn& mine, const Result<Children>& page) {
    COORD_ASSERT(phase == Phase::listing);
    if (!page) return fail(page.error() == Errc::no_node ? Errc::lock_lost : page.error());
    for (const Bytes& name : page->names) {
        const std::optional<std::int64_t> number = sequence_of(name);
        if (name == mine->node) mine->is_listed = true;
        if (!number || *number >= mine->number || *number <= mine->before_number) continue;
        if (mine->kind == LockKind::read && is_reader(name)) continue;  // K2
        mine->before_number = *number, mine->before = name;
    }
    if (page->more) return list(mine, Page{page->names.back(), SIZE_MAX});
    take_place(mine);
    audit();
}

COORD_RARE
void LockCore::take_place(const Turn& mine) {
    if (!mine->is_listed) return fail(Errc::lock_lost);
    if (mine->before.empty()) return settle(mine);
    if (is_try) return fail(Errc::lock_busy);
    wait_for(mine);
}

// A turn that was given up leaves its watcher behind; where the next one waits for the same node it
// uses that, so that trying for a long time does not heap them up. get sets no watcher where the
// node has gone since it was listed.
COORD_RARE
void LockCore::wait_for(const Turn& mine) {
    phase = Phase::waiting;
    if (watched == mine->before) return;  // K3
    watched = mine->before;
    const auto on_event = [weak = weak_from_this(), node = watched](const WatchEvent&) {
        if (const auto core = weak.lock()) core->on_before_gone(node);
    };
    const auto on_set = [core = shared_from_this(), mine, node = watched](const Result<Data>& set) {
        if (set) return;
        if (set.error() == Errc::no_node) return core->on_before_gone(node);
        if (core->watched == node) core->watched.clear();
        if (core->is_current(mine)) core->fail(set.error());
    };
    session.get(path_of(watched), on_event, on_set);
}

// Or changed; the list will tell.
void LockCore::on_before_gone(const Bytes& node) {
    if (watched != node) return;
    watched.clear();
    if (phase != Phase::waiting) return;
    phase = Phase::listing;
    list(turn, Page{});
}

// It is first, and stays first while its node is there. But its session may be over without this
// replica knowing, and the lock somebody else's: it is granted when that is ruled out.
COORD_RARE
void LockCore::settle(const Turn& mine) {
    COORD_ASSERT(is_current(mine) && mine->is_listed && mine->before.empty());  // K2
    if (!is_certain(session.now())) {
        phase = Phase::settling;
        const Duration pause = session.timeout() / 32 + milliseconds(1);
        session.at(session.now() + pause, [weak = weak_from_this(), mine] {
            const auto core = weak.lock();
            if (core && core->is_current(mine)) core->settle(mine);
        });
        return;
    }
    phase = Phase::held;
    const OnGranted done = std::exchange(waiter, nullptr);  // K4
    audit();
    if (done) done(Grant{mine->token, path_of(mine->node), mine->czxid});
}

// One step for all others (K5): who waits for the writer's node finds a reader's of its number.
COORD_RARE
void LockCore::downgrade(OnGranted done) {
    const bool is_writer = phase == Phase::held && turn->kind == LockKind::write;
    if (!is_writer || !turn->next.empty()) {
        return answer_later(std::move(done), Errc::bad_arguments);
    }
    turn->next = reader_name(turn->node);
    waiter = std::move(done);
    const Bytes from = path_of(turn->node), to = path_of(turn->next);
    const auto on_answer = [core = shared_from_this(), mine = turn](const Multi& result) {
        core->on_downgraded(mine, result);
    };
    session.multi({Op::create(to, {}, CreateMode::ephemeral, {}, acl), Op::remove(from)},
                  on_answer);
    audit();
}

COORD_RARE
void LockCore::on_downgraded(const Turn& mine, const Multi& result) {
    const Bytes next = std::exchange(mine->next, Bytes());
    COORD_ASSERT(!next.empty());
    Errc error = result.error;
    if (error == Errc::ok) {
        COORD_ASSERT(mine->czxid < result.parts[0].stat.czxid);
        mine->node = next, mine->kind = LockKind::read;  // its number and token stay (K5)
        mine->czxid = result.parts[0].stat.czxid;
    }
    if (mine->is_over) {
        if (!mine->node.empty()) remove_node(mine, mine->removed);  // K1
        return;
    }
    COORD_ASSERT(phase == Phase::held && mine == turn);
    if (error == Errc::no_node || (error != Errc::ok && mine->is_gone)) error = Errc::lock_lost;
    const bool is_end = is_node_gone(error) || error == Errc::session_moved ||
                        error == Errc::outcome_unknown;
    if (is_end) return fail(error);
    mine->is_gone = false;
    const OnGranted done = std::exchange(waiter, nullptr);  // K4
    if (error == Errc::ok) watch_own(mine);
    audit();
    if (!done) return;
    if (error != Errc::ok) return done(error);
    done(Grant{mine->token, path_of(mine->node), mine->czxid});
}

// Suspended is no loss: the session may live on, and certain_until says for how long it is safe.
// But a replica that has failed will never hear of the session again.
void LockCore::on_state(SessionState state) {
    const bool is_over = state == SessionState::expired || state == SessionState::closed;
    if (is_over) return fail(Errc::session_expired);
    if (state == SessionState::moved) return fail(Errc::session_moved);
    if (session.replica().status().role == Role::failed) fail(Errc::replica_failed);
}

// The turn ends by an error: who waits is told, or who held.
COORD_RARE
void LockCore::fail(Errc error) {
    COORD_ASSERT(turn != nullptr);
    const bool was_held = phase == Phase::held;
    const bool has_expired = session.state() == SessionState::expired;  // which removed the node
    if (error == Errc::lock_lost && has_expired) error = Errc::session_expired;
    error = known_end(session, error);
    if (is_node_gone(error)) turn->node.clear();
    const OnGranted done = end_turn({});
    const OnLost told = lost;  // the call may replace it, or destroy the lock
    if (was_held && told) told(error);
    if (done && self != nullptr) done(error);
}

// RETURNS whom to tell.
COORD_RARE
OnGranted LockCore::end_turn(const OnDone& removed) {
    COORD_ASSERT(turn != nullptr && !turn->is_over);
    const Turn ended = std::exchange(turn, nullptr);
    const bool is_named = phase != Phase::creating && ended->next.empty();
    phase = Phase::idle;
    ended->is_over = true;
    if (!is_named) {
        ended->removed = removed;
    } else if (!ended->node.empty()) {
        remove_node(ended, removed);
    }
    audit();
    return std::exchange(waiter, nullptr);
}

COORD_RARE
void LockCore::remove_node(const Turn& ended, const OnDone& removed) {
    COORD_ASSERT(ended->is_over && !ended->node.empty());  // K1
    const auto on_removed = [core = shared_from_this(), ended, removed](Result<void> result) {
        if (result.error() == Errc::too_many) return core->remove_node_later(ended, removed);
        if (!removed) return;
        const Errc error = known_end(core->session, result.error());
        removed(error == Errc::no_node ? Errc::lock_lost : error);
    };
    session.remove(path_of(ended->node), on_removed);
}

// So many requests are in flight that this one was refused.
void LockCore::remove_node_later(const Turn& ended, const OnDone& removed) {
    session.at(session.now() + milliseconds(10), [core = shared_from_this(), ended, removed] {
        core->remove_node(ended, removed);
    });
}

}  // namespace detail

Session Grant::guarded(const Session& session) const {
    return session.guarded_by(node, czxid);
}

Lock::Lock(Session session, BytesView path, const Acl& acl)
    : core_(new detail::LockCore(std::move(session), path, acl)) {
    core_->self.reset(core_);
    core_->session.on_state(core_->weak_from_this(), [core = core_](SessionState state) {
        if (core->turn != nullptr) core->on_state(state);
    });
}

Lock::~Lock() {
    const std::shared_ptr<detail::LockCore> core = std::move(core_->self);
    core->lost = nullptr;
    if (core->turn != nullptr) core->end_turn({});
}

void Lock::acquire(OnGranted done) {
    core_->acquire(detail::LockKind::exclusive, false, std::move(done));
}

void Lock::try_acquire(OnGranted done) {
    core_->acquire(detail::LockKind::exclusive, true, std::move(done));
}

void Lock::acquire_for(Duration limit, OnGranted done) {
    core_->acquire_for(detail::LockKind::exclusive, limit, std::move(done));
}

void Lock::cancel() {
    if (core_->turn == nullptr || core_->phase == detail::LockCore::Phase::held) return;
    core_->answer_later(core_->end_turn({}), Errc::cancelled);
}

void Lock::release(OnDone done) {
    if (core_->turn != nullptr) {
        return core_->answer_later(core_->end_turn(done), Errc::cancelled);
    }
    core_->session.at(core_->session.now(), [done = std::move(done)] {
        if (done) done(Result<void>());
    });
}

void Lock::on_lost(OnLost listener) { core_->lost = std::move(listener); }

bool Lock::is_held(Time now) const {
    return core_->phase == detail::LockCore::Phase::held && core_->is_certain(now);
}

Time Lock::certain_until() const {
    if (core_->phase != detail::LockCore::Phase::held) return Time{};
    return core_->session.certain_until();
}

std::uint64_t Lock::fencing_token() const {
    return core_->phase == detail::LockCore::Phase::held ? core_->turn->token : 0;
}

const Bytes& Lock::path() const { return core_->path; }

static detail::LockKind lock_kind(Access access) {
    return access == Access::read ? detail::LockKind::read : detail::LockKind::write;
}

void ReadWriteLock::acquire(Access access, OnGranted done) {
    core_->acquire(lock_kind(access), false, std::move(done));
}

void ReadWriteLock::acquire_for(Access access, Duration limit, OnGranted done) {
    core_->acquire_for(lock_kind(access), limit, std::move(done));
}

void ReadWriteLock::try_acquire(Access access, OnGranted done) {
    core_->acquire(lock_kind(access), true, std::move(done));
}

void ReadWriteLock::downgrade(OnGranted done) { core_->downgrade(std::move(done)); }

namespace detail {

// As of LockCore: requests hold it, watchers and timers do not.
struct BarrierCore : std::enable_shared_from_this<BarrierCore> {
    BarrierCore(Session handle, BytesView node, const Acl& nodes_acl)
        : session(std::move(handle)), path(node), acl(nodes_acl) {}

    void raise(int attempts_left, const OnDone& done);
    void wait(OnDone done);
    void look();
    void end(Errc error);
    void answer_later(const OnDone& done, Errc error);

    const Session session;
    const Bytes path;
    const Acl acl;
    std::shared_ptr<BarrierCore> self;
    std::uint64_t turn = 0;    // of the wait that is under way, or was last
    bool is_waiting = false;
    bool is_looking = false;   // an answer will come
    bool is_watching = false;  // an event will come, once it has been there
    OnDone waiter;
};

// Callbacks come inside poll, also for what a call has decided.
void BarrierCore::answer_later(const OnDone& done, Errc error) {
    if (!done) return;
    session.at(session.now(), [weak = weak_from_this(), done, error] {
        const auto core = weak.lock();
        if (core && core->self != nullptr) done(error == Errc::ok ? Result<void>() : error);
    });
}

COORD_RARE
void BarrierCore::raise(int attempts_left, const OnDone& done) {
    COORD_ASSERT(attempts_left > 0);
    const auto on_answer = [core = shared_from_this(), attempts_left, done](Result<Created> made) {
        const Errc error = made.error();
        if (error == Errc::no_node && attempts_left > 1) {
            create_parents(core->session, core->path, core->acl);
            return core->raise(attempts_left - 1, done);
        }
        if (!done || core->self == nullptr) return;
        if (error == Errc::ok || error == Errc::node_exists) return done(Result<void>());
        done(known_end(core->session, error));
    };
    session.create(path, {}, CreateMode::persistent, {}, acl, on_answer);
}

COORD_RARE
void BarrierCore::wait(OnDone done) {
    if (is_waiting || !is_valid_path(path)) return answer_later(done, Errc::bad_arguments);
    COORD_ASSERT(!waiter);
    turn += 1, is_waiting = true, waiter = std::move(done);
    look();
}

// Whatever the event was: the answer of a quorum says whether it is there (K6).
COORD_RARE
void BarrierCore::look() {
    COORD_ASSERT(is_waiting);
    if (is_looking) return;
    is_looking = true;
    const bool sets = !is_watching;
    Watcher watcher;
    if (sets) {
        watcher = [weak = weak_from_this()](const WatchEvent&) {
            const auto core = weak.lock();
            if (!core) return;
            core->is_watching = false;
            if (core->is_waiting) core->look();
        };
    }
    const auto on_answer = [core = shared_from_this(), asked = turn,
                            sets](const Result<Stat>& there) {
        core->is_looking = false;
        const Errc error = there.error();
        if (!there && error != Errc::no_node && sets) core->is_watching = false;
        if (!core->is_waiting) return;
        if (core->turn != asked) return core->look();
        if (error == Errc::no_node) return core->end(Errc::ok);
        if (!there) return core->end(error);
        if (!core->is_watching) core->look();  // it has gone, or changed, since
    };
    is_watching = true;
    session.linearizable().exists(path, std::move(watcher), on_answer);
}

COORD_RARE
void BarrierCore::end(Errc error) {
    COORD_ASSERT(is_waiting);
    is_waiting = false;
    const OnDone done = std::exchange(waiter, nullptr);
    if (done) done(error == Errc::ok ? Result<void>() : Result<void>(known_end(session, error)));
}

// One stay at a double barrier, from the create of its node to its removal.
struct BarrierStay {
    Bytes node;              // its path; empty until the create is answered
    Zxid czxid;
    Zxid ready;              // of its round, once that has begun
    Errc reason = Errc::ok;  // why it is to be given up
    bool is_over = false;    // nobody waits for it any more
};

//     idle -> creating -> entering -> inside -> leaving        (any of them -> idle)
struct DoubleBarrierCore : std::enable_shared_from_this<DoubleBarrierCore> {
    enum class Phase : std::uint8_t { idle, creating, entering, inside, leaving };
    using Stay = std::shared_ptr<BarrierStay>;
    static constexpr int create_attempts_max = 8;

    DoubleBarrierCore(Session handle, BytesView barrier, std::size_t count, const Acl& nodes_acl)
        : session(std::move(handle)), path(barrier), members(count), acl(nodes_acl) {}

    void enter(OnDone done);
    void limit(Duration duration);
    void create_node(const Stay& mine, int attempts_left);
    void on_created(const Stay& mine, int attempts_left, const Result<Created>& created);
    void watch(const Stay& mine, const Bytes& node);
    void look(const Stay& mine);
    void on_list(const Stay& mine, const Result<Found>& found);
    void wait_to_enter(const Stay& mine, const Found& found, const Child* ready);
    void begin(const Stay& mine, std::size_t count);
    void give_up(const Stay& mine, const Child* ready);
    void wait_to_leave(const Stay& mine, const Found& found, const Child* ready);
    void ask(const Stay& mine, std::vector<Op> parts);
    void look_after(const Stay& mine, Errc error);
    void leave(OnDone done);
    void cancel();
    void on_state(SessionState state);
    void end(Stay mine, Errc error);
    void remove_node(const Stay& mine);
    void answer_later(const OnDone& done, Errc error);
    bool is_current(const Stay& mine) const { return !mine->is_over && mine == stay; }
    bool waits() const { return phase == Phase::entering || phase == Phase::leaving; }
    Bytes ready_path() const { return child_path(path, "ready"); }
    void audit() const;

    const Session session;
    const Bytes path;
    const std::size_t members;
    const Acl acl;
    std::shared_ptr<DoubleBarrierCore> self;
    Phase phase = Phase::idle;
    Stay stay;  // null while idle
    OnDone waiter;
    bool is_looking = false;    // an answer will come, after which
    bool is_look_due = false;   // something has happened: look again
    std::vector<Bytes> watched; // nodes whose watchers have not been called yet
};

void DoubleBarrierCore::audit() const {
    COORD_ASSERT((stay == nullptr) == (phase == Phase::idle));
    COORD_ASSERT(stay == nullptr || !stay->is_over);
    COORD_ASSERT(stay == nullptr || stay->node.empty() == (phase == Phase::creating));
    const bool has_begun = phase == Phase::inside || phase == Phase::leaving;
    COORD_ASSERT(!has_begun || stay->czxid < stay->ready);  // K7
    COORD_ASSERT(phase != Phase::inside || !waiter);
}

void DoubleBarrierCore::answer_later(const OnDone& done, Errc error) {
    if (!done) return;
    session.at(session.now(), [weak = weak_from_this(), done, error] {
        const auto core = weak.lock();
        if (core && core->self != nullptr) done(error);
    });
}

COORD_RARE
void DoubleBarrierCore::enter(OnDone done) {
    const bool is_count = members > 0 && members <= DoubleBarrier::members_max;
    if (stay != nullptr || !is_count || !is_valid_path(path)) {
        return answer_later(done, Errc::bad_arguments);
    }
    stay = Stay(new BarrierStay);
    phase = Phase::creating;
    waiter = std::move(done);
    create_node(stay, create_attempts_max);
    audit();
}

COORD_RARE
void DoubleBarrierCore::limit(Duration duration) {
    if (duration.ns > 0 && session.now().ns > never.ns - duration.ns) return;
    session.at(session.now() + duration, [weak = weak_from_this(), mine = stay] {
        const auto core = weak.lock();
        if (!core || !core->is_current(mine) || mine->ready != Zxid{}) return;
        if (mine->reason == Errc::ok) mine->reason = Errc::operation_timeout;
        if (core->phase == Phase::entering) core->look(mine);
    });
}

COORD_RARE
void DoubleBarrierCore::create_node(const Stay& mine, int attempts_left) {
    COORD_ASSERT(attempts_left > 0);
    const auto on_answer = [core = shared_from_this(), mine, attempts_left](Result<Created> made) {
        core->on_created(mine, attempts_left - 1, made);
    };
    session.create(child_path(path, new_uuid(session)), {}, CreateMode::ephemeral, {}, acl,
                   on_answer);
}

COORD_RARE
void DoubleBarrierCore::on_created(const Stay& mine, int attempts_left,
                                   const Result<Created>& created) {
    if (created) mine->node = created->path, mine->czxid = created->stat.czxid;
    if (mine->is_over) {
        if (created) remove_node(mine);
        return;
    }
    COORD_ASSERT(phase == Phase::creating && mine == stay);
    if (!created && created.error() == Errc::no_node && attempts_left > 0) {
        create_parents(session, path, acl);
        return create_node(mine, attempts_left);
    }
    if (!created) return end(mine, created.error());
    phase = Phase::entering;
    watch(mine, mine->node);
    watch(mine, ready_path());
    look(mine);
    audit();
}

// Of what it waits for, and of its own node. get sets no watcher where that has gone meanwhile;
// exists does, since ready is yet to come.
COORD_RARE
void DoubleBarrierCore::watch(const Stay& mine, const Bytes& node) {
    if (std::find(watched.begin(), watched.end(), node) != watched.end()) return;
    watched.push_back(node);
    const auto forget = [](DoubleBarrierCore& core, const Bytes& seen) {
        const auto place = std::find(core.watched.begin(), core.watched.end(), seen);
        if (place != core.watched.end()) core.watched.erase(place);
    };
    const auto on_event = [weak = weak_from_this(), node, forget](const WatchEvent&) {
        const auto core = weak.lock();
        if (!core) return;
        forget(*core, node);
        if (core->waits()) core->look(core->stay);
    };
    const auto on_set = [core = shared_from_this(), mine, node, forget](Errc error) {
        if (error == Errc::ok) return;
        forget(*core, node);
        const bool is_gone = error == Errc::no_node;
        if (is_gone && node == mine->node) return;  // the list that comes after it will tell
        if (is_gone && core->waits()) return core->look(core->stay);
        if (!is_gone && core->is_current(mine)) core->end(mine, error);
    };
    if (node != ready_path()) {
        return session.get(node, on_event, [on_set](const Result<Data>& set) {
            on_set(set.error());
        });
    }
    session.exists(node, on_event, [on_set](const Result<Stat>& set) {
        if (set.error() != Errc::no_node) on_set(set.error());
    });
}

// All that it goes by is of one moment, and of after the watchers were set (K6).
COORD_RARE
void DoubleBarrierCore::look(const Stay& mine) {
    COORD_ASSERT(is_current(mine) && waits());
    is_look_due = is_looking;
    if (is_looking) return;
    is_looking = true;
    if (phase == Phase::entering) watch(mine, ready_path()), watch(mine, mine->node);
    session.read(Query::list(path), [core = shared_from_this(), mine](Result<Found> found) {
        core->is_looking = false;
        const bool is_due = std::exchange(core->is_look_due, false);
        if (!core->waits()) return;
        if (is_due || !core->is_current(mine)) return core->look(core->stay);
        core->on_list(mine, found);
    });
}

COORD_RARE
void DoubleBarrierCore::on_list(const Stay& mine, const Result<Found>& found) {
    if (!found && found.error() != Errc::no_node) return end(mine, found.error());
    if (!found) {  // somebody has removed it all
        mine->node.clear();
        return end(mine, phase == Phase::leaving ? Errc::ok : Errc::lock_lost);
    }
    if (found->more) return end(mine, Errc::too_large);
    const Child* ready = nullptr;
    for (const Child& child : found->nodes) {
        if (child.name == "ready") ready = &child;
    }
    if (phase == Phase::leaving) return wait_to_leave(mine, *found, ready);
    wait_to_enter(mine, *found, ready);
}

// Of the round are those nodes that are older than ready (K7). One that is left of a round that is
// over, all of whose members have gone without removing it, is removed.
COORD_RARE
void DoubleBarrierCore::wait_to_enter(const Stay& mine, const Found& found, const Child* ready) {
    const bool is_open = ready != nullptr && mine->czxid < ready->stat.czxid;
    const Child* earlier = nullptr;
    bool is_there = false;
    for (const Child& child : found.nodes) {
        const bool is_own = child.stat.czxid == mine->czxid;
        if (is_own) is_there = true;
        if (is_own || ready == nullptr || &child == ready) continue;
        if (child.stat.czxid < ready->stat.czxid) earlier = &child;
    }
    if (!is_there) return end(mine, Errc::lock_lost);
    if (is_open) {
        mine->ready = ready->stat.czxid;
        phase = Phase::inside;
        const OnDone done = std::exchange(waiter, nullptr);
        audit();
        if (done) done(Result<void>());
        return;
    }
    if (mine->reason != Errc::ok) return give_up(mine, ready);
    if (ready == nullptr && found.nodes.size() >= members) return begin(mine, found.nodes.size());
    if (ready == nullptr) return;
    if (earlier != nullptr) return watch(mine, child_path(path, earlier->name));
    const Bytes node = ready_path();
    ask(mine, {Op::has_czxid(node, ready->stat.czxid), Op::remove(node)});
}

// As many as were listed are still there as this is executed, or it is not.
COORD_RARE
void DoubleBarrierCore::begin(const Stay& mine, std::size_t count) {
    COORD_ASSERT(count >= members);  // K7
    const Bytes node = ready_path();
    ask(mine, {Op::has_czxid(mine->node, mine->czxid), Op::has_children(path, count),
               Op::create(node, {}, CreateMode::persistent, {}, acl)});
}

// In one step with that its round has not begun (K7).
COORD_RARE
void DoubleBarrierCore::give_up(const Stay& mine, const Child* ready) {
    COORD_ASSERT(mine->reason != Errc::ok);
    const Bytes node = ready_path();
    std::vector<Op> parts;
    if (ready == nullptr) parts.push_back(Op::absent(node));
    if (ready != nullptr) parts.push_back(Op::has_czxid(node, ready->stat.czxid));
    parts.push_back(Op::remove(mine->node));
    is_looking = true;
    session.multi(parts, [core = shared_from_this(), mine](const Multi& result) {
        core->is_looking = false, core->is_look_due = false;
        if (core->is_current(mine) && result) mine->node.clear();
        if (core->is_current(mine) && result) return core->end(mine, mine->reason);
        core->look_after(mine, result.error);
    });
}

// Whether it took effect the next look tells.
COORD_RARE
void DoubleBarrierCore::ask(const Stay& mine, std::vector<Op> parts) {
    is_looking = true;
    session.multi(std::move(parts), [core = shared_from_this(), mine](const Multi& result) {
        core->is_looking = false, core->is_look_due = false;
        core->look_after(mine, result.error);
    });
}

// The stay may be another by now, which could not look while this was under way.
COORD_RARE
void DoubleBarrierCore::look_after(const Stay& mine, Errc error) {
    const bool is_judged = error == Errc::ok || error == Errc::node_exists ||
                           error == Errc::no_node || error == Errc::condition_failed;
    if (is_current(mine) && !is_judged) return end(mine, error);
    if (waits()) look(stay);
}

COORD_RARE
void DoubleBarrierCore::leave(OnDone done) {
    if (phase != Phase::inside) return answer_later(done, Errc::bad_arguments);
    phase = Phase::leaving;
    waiter = std::move(done);
    look(stay);
    audit();
}

// As the recipe has it: the lowest waits for the highest, and goes last; all others go, and wait
// for the lowest. The last one takes ready along.
COORD_RARE
void DoubleBarrierCore::wait_to_leave(const Stay& mine, const Found& found, const Child* ready) {
    const Child *lowest = nullptr, *highest = nullptr;  // of the others of the round, by name
    bool is_there = false, is_lowest = false;
    for (const Child& child : found.nodes) {
        if (child.stat.czxid == mine->czxid) {
            is_there = true, is_lowest = lowest == nullptr;
            continue;
        }
        if (child.stat.czxid >= mine->ready) continue;
        if (lowest == nullptr) lowest = &child;
        highest = &child;
    }
    const bool is_ready = ready != nullptr && ready->stat.czxid == mine->ready;
    if (lowest == nullptr) {
        if (!is_there && !is_ready) {
            mine->node.clear();
            return end(mine, Errc::ok);
        }
        const Bytes node = ready_path();
        std::vector<Op> parts;
        if (is_ready) parts.push_back(Op::has_czxid(node, mine->ready));
        if (is_ready) parts.push_back(Op::remove(node));
        if (is_there) parts.push_back(Op::remove(mine->node));
        return ask(mine, std::move(parts));
    }
    if (is_there && is_lowest) return watch(mine, child_path(path, highest->name));
    if (is_there) return ask(mine, {Op::remove(mine->node)});
    watch(mine, child_path(path, lowest->name));
}

COORD_RARE
void DoubleBarrierCore::cancel() {
    if (stay == nullptr || phase == Phase::inside) return;
    if (phase == Phase::leaving) {
        const OnDone done = std::exchange(waiter, nullptr);
        end(stay, Errc::cancelled);
        return answer_later(done, Errc::cancelled);
    }
    if (stay->reason == Errc::ok) stay->reason = Errc::cancelled;
    if (phase == Phase::entering) look(stay);
}

void DoubleBarrierCore::on_state(SessionState state) {
    if (stay == nullptr) return;
    const bool is_over = state == SessionState::expired || state == SessionState::closed;
    if (is_over) return end(stay, Errc::session_expired);
    if (state == SessionState::moved) return end(stay, Errc::session_moved);
    if (session.replica().status().role == Role::failed) end(stay, Errc::replica_failed);
}

// Its node goes with it, where it may be there yet.
COORD_RARE
void DoubleBarrierCore::end(Stay mine, Errc error) {
    COORD_ASSERT(is_current(mine));
    const bool has_expired = session.state() == SessionState::expired;
    if (error == Errc::lock_lost && has_expired) error = Errc::session_expired;
    error = known_end(session, error);
    const bool is_named = phase != Phase::creating;
    phase = Phase::idle;
    mine->is_over = true;
    stay = nullptr;
    if (is_named && !mine->node.empty() && !is_node_gone(error)) remove_node(mine);
    const OnDone done = std::exchange(waiter, nullptr);
    audit();
    if (done) done(error == Errc::ok ? Result<void>() : Result<void>(error));
}

COORD_RARE
void DoubleBarrierCore::remove_node(const Stay& mine) {
    COORD_ASSERT(mine->is_over && !mine->node.empty());
    session.remove(mine->node, [core = shared_from_this(), mine](Result<void> result) {
        if (result.error() != Errc::too_many) return;
        core->session.at(core->session.now() + milliseconds(10),
                         [core, mine] { core->remove_node(mine); });
    });
}

}  // namespace detail

Barrier::Barrier(Session session, BytesView path, const Acl& acl)
    : core_(new detail::BarrierCore(std::move(session), path, acl)) {
    core_->self.reset(core_);
    core_->session.on_state(core_->weak_from_this(), [core = core_](SessionState state) {
        if (!core->is_waiting) return;
        if (state == SessionState::moved) return core->end(Errc::session_moved);
        if (state == SessionState::expired || state == SessionState::closed) {
            return core->end(Errc::session_expired);
        }
        if (core->session.replica().status().role == Role::failed) {
            core->end(Errc::replica_failed);
        }
    });
}

Barrier::~Barrier() {
    const std::shared_ptr<detail::BarrierCore> core = std::move(core_->self);
    core->is_waiting = false, core->waiter = nullptr;
}

void Barrier::raise(OnDone done) { core_->raise(detail::LockCore::create_attempts_max, done); }

void Barrier::lower(OnDone done) {
    core_->session.remove(core_->path, [core = core_->shared_from_this(), done](Result<void> gone) {
        if (!done || core->self == nullptr) return;
        const Errc error = gone.error();
        if (error == Errc::ok || error == Errc::no_node) return done(Result<void>());
        done(detail::known_end(core->session, error));
    });
}

void Barrier::wait(OnDone done) { core_->wait(std::move(done)); }

void Barrier::wait_for(Duration limit, OnDone done) {
    const bool is_new = !core_->is_waiting;
    core_->wait(std::move(done));
    const Session& session = core_->session;
    if (!is_new || !core_->is_waiting) return;
    if (limit.ns > 0 && session.now().ns > never.ns - limit.ns) return;
    session.at(session.now() + limit, [weak = core_->weak_from_this(), turn = core_->turn] {
        const auto core = weak.lock();
        if (core && core->is_waiting && core->turn == turn) core->end(Errc::operation_timeout);
    });
}

void Barrier::cancel() {
    if (!core_->is_waiting) return;
    const OnDone done = std::exchange(core_->waiter, nullptr);
    core_->is_waiting = false;
    core_->answer_later(done, Errc::cancelled);
}

DoubleBarrier::DoubleBarrier(Session session, BytesView path, std::size_t members, const Acl& acl)
    : core_(new detail::DoubleBarrierCore(std::move(session), path, members, acl)) {
    core_->self.reset(core_);
    core_->session.on_state(core_->weak_from_this(),
                            [core = core_](SessionState state) { core->on_state(state); });
}

DoubleBarrier::~DoubleBarrier() {
    const std::shared_ptr<detail::DoubleBarrierCore> core = std::move(core_->self);
    core->waiter = nullptr;
    if (core->stay != nullptr) core->end(core->stay, Errc::cancelled);
}

void DoubleBarrier::enter(OnDone done) { core_->enter(std::move(done)); }

void DoubleBarrier::enter_for(Duration limit, OnDone done) {
    const bool is_new = core_->stay == nullptr;
    core_->enter(std::move(done));
    if (is_new && core_->stay != nullptr) core_->limit(limit);
}

void DoubleBarrier::leave(OnDone done) { core_->leave(std::move(done)); }

void DoubleBarrier::cancel() { core_->cancel(); }

bool DoubleBarrier::is_inside() const {
    return core_->phase == detail::DoubleBarrierCore::Phase::inside;
}

// =================================================================================================
// Part Two, chapter 15: Simulation
// =================================================================================================

// A host: a replica, its disk, its clock, its end of the network.
struct Simulation::Node final : Transport {
    Node(Simulation& owner, PeerId own_id) : simulation(owner), id(own_id) {}
    void send(PeerId to, BytesView bytes) override { simulation.send(*this, to, bytes); }
    std::size_t message_bytes_max() const override { return simulation.options_.message_bytes_max; }

    // The clock runs at (1000000 + rate_ppm) millionths of virtual time, rounded down.
    Time clock(Time time) const {
        return {origin.ns + time.ns + time.ns / 1000000 * rate_ppm +
                (time.ns % 1000000) * rate_ppm / 1000000};
    }
    // The first virtual time at which the clock shows at least that.
    Time when(Time shown) const {
        if (shown >= Time{never.ns / 4}) return never;
        const std::int64_t span = shown.ns - origin.ns;
        if (span <= 0) return Time{};
        if (rate_ppm == 0) return Time{span};
        const std::int64_t rate = 1000000 + rate_ppm;
        Time time{span / rate * 1000000 + span % rate * 1000000 / rate};
        while (time.ns > 0 && clock(Time{time.ns - 1}) >= shown) time.ns -= 1;
        while (clock(time) < shown) time.ns += 1;  // the estimate is off by a few at the most
        return time;
    }

    Simulation& simulation;
    const PeerId id;
    MemoryStorage storage;             // outlives the replica
    detail::Owned<Replica> replica;  // null: crashed
    std::uint64_t starts = 0;
    bool paused = false;
    bool polling = false;
    bool doomed = false;               // crashes when its poll is done
    std::uint32_t sends_left = UINT32_MAX;
    Time polled_at;
    Time wake_at = never;              // something came for it
    std::uint64_t calls = 0;           // of its replica, as last seen
    Time deadline;                     // its own, by its own clock, as last seen
    Time deadline_at = never;          // the same in virtual time
    std::size_t waiting_bytes = 0;     // received since its last poll
    bool is_flushing = false;
    Time disk_free_at;
    Time origin;
    std::int64_t rate_ppm = 0;
    std::int64_t wall_error_ms = 0;
};

namespace detail {

// A line of a trace: format has room for up to two numbers, each as %llu, and is short.
static Bytes text_of(const char* format, unsigned long long a, unsigned long long b = 0) {
    char text[96];
    std::snprintf(text, sizeof text, format, a, b);
    return text;
}

constexpr Duration poll_gap = microseconds(1);          // no host polls more often
constexpr std::size_t waiting_bytes_max = 1024 * 1024;  // as much as a socket holds
constexpr std::size_t overheard_max = 512;
constexpr std::int64_t wall_start_ms = 1600000000000;   // virtual time 0 in Unix time
}  // namespace detail

COORD_RARE
Simulation::Simulation(const SimulationOptions& options)
    : options_(options),
      network_rng_(mix64(options.seed, 1)),
      disk_rng_(mix64(options.seed, 2)),
      clock_rng_(mix64(options.seed, 3)),
      start_rng_(mix64(options.seed, 4)),
      third_rng_(mix64(options.seed, 5)),
      nodes_(std::size_t{options.voters} + options.observers),
      links_((std::size_t{options.voters} + options.observers) *
             (std::size_t{options.voters} + options.observers)) {
    COORD_ASSERT(options.voters >= 1 && options.voters <= Voters::count_max);
    set_network(options.network);
    COORD_ASSERT(options.clocks.rate_permille_min >= 500);
    COORD_ASSERT(options.clocks.rate_permille_max <= 2000);
    options_.replica.voters.clear();
    for (std::uint32_t i = 1; i <= size(); i++) {
        if (i <= options.voters) options_.replica.voters.push_back(PeerId{i});
        nodes_[i - 1] = detail::Owned<Node>(new Node(*this, PeerId{i}));
    }
    const SimulatedClocks& clocks = options_.clocks;
    const auto error_ms = static_cast<std::uint64_t>(clocks.wall_error_max.ns / 1000000);
    for (const auto& each : nodes_) {
        const std::uint64_t rate_ppm = clock_rng_.between(clocks.rate_permille_min * 1000u,
                                                          clocks.rate_permille_max * 1000u);
        each->rate_ppm = static_cast<std::int64_t>(rate_ppm) - 1000000;
        each->wall_error_ms = static_cast<std::int64_t>(clock_rng_.between(0, 2 * error_ms)) -
                              static_cast<std::int64_t>(error_ms);
    }
    for (const auto& each : nodes_) start(*each);
}

COORD_RARE
Simulation::~Simulation() = default;

Simulation::Node& Simulation::node(Which which) const {
    COORD_ASSERT(which.number >= 1 && which.number <= nodes_.size());
    return *nodes_[which.number - 1];
}

Simulation::Link& Simulation::link(Which from, Which to) {
    COORD_ASSERT(from.number >= 1 && from.number <= nodes_.size());
    COORD_ASSERT(to.number >= 1 && to.number <= nodes_.size());
    return links_[(from.number - 1) * nodes_.size() + (to.number - 1)];
}

Duration Simulation::draw(Rng& rng, Duration low, Duration high) {
    COORD_ASSERT(low.ns >= 0 && low <= high);
    const auto drawn = rng.between(static_cast<std::uint64_t>(low.ns),
                                   static_cast<std::uint64_t>(high.ns));
    return {static_cast<std::int64_t>(drawn)};
}

void Simulation::mix(std::uint64_t tag, std::uint64_t a, std::uint64_t b) {
    hash_ = mix64(hash_, mix64(a, b) + ((tag << 56) ^ static_cast<std::uint64_t>(now_.ns)));
}

// Time

// One event if there is one until limit; or else time goes on to limit. At one time, what comes to
// the replicas is before their polls.
bool Simulation::advance(Time limit) {
    COORD_ASSERT(!stepping_ && limit >= now_);
    Node* next = nullptr;
    Time at = never;
    for (const auto& each : nodes_) {
        const Time due = due_at(*each);
        if (due < at) at = due, next = each.get();
    }
    const bool is_event = !events_.empty() && events_.front().at <= at;
    if (is_event) at = events_.front().at;
    if (at == never || at > limit) {
        if (limit != never) now_ = limit;
        return false;
    }
    now_ = (std::max)(now_, at);
    counters_.steps += 1;
    stepping_ = true;
    if (is_event) {
        handle(events_.take());
    } else {
        poll(*next);
    }
    stepping_ = false;
    return true;
}

Time Simulation::due_at(Node& node) {
    if (!node.replica || node.paused) return never;
    if (node.calls != node.replica->counters().calls) note_calls(node);
    const Time due = (std::min)(node.wake_at, node.deadline_at);
    return due == never ? never : (std::max)(due, node.polled_at + detail::poll_gap);
}

// What a message or the disk did to the deadline is not a call: the replica is woken as it is.
void Simulation::note_deadline(Node& node) {
    node.calls = node.replica->counters().calls;
    node.deadline = node.replica->next_deadline();
}

// A deadline that differs from the one after the last poll comes from a call made since.
void Simulation::note_calls(Node& node) {
    const Time deadline = node.replica->next_deadline();
    node.calls = node.replica->counters().calls;
    if (deadline == node.deadline) return;
    node.deadline = deadline;
    node.deadline_at = node.when(deadline);
    calls_ += 1;
}

void Simulation::schedule(Time at, EventKind kind, std::uint32_t what, std::uint64_t start,
                          Sequence sequence) {
    COORD_ASSERT(at >= now_);
    Event event;
    event.at = at;
    event.kind = kind;
    event.what = what;
    event.start = start;
    event.sequence = sequence;
    events_.add(std::move(event));
}

void Simulation::handle(const Event& event) {
    if (event.kind == EventKind::message) {
        deliver(event.what);
    } else if (event.kind == EventKind::durable) {
        Node& disk = *nodes_[event.what];
        if (event.start != disk.starts || !disk.replica) return;  // lost in a crash
        disk.storage.release(event.sequence);
        disk.is_flushing = false;
        schedule_flush(disk);  // of what has come meanwhile
        disk.wake_at = now_;
        note_deadline(disk);
    } else {
        const Callback<void()> action = std::move(actions_[event.what]);
        actions_[event.what] = nullptr;
        free_actions_.push_back(event.what);
        action();
    }
}

void Simulation::deliver(std::uint32_t packet) {
    free_packets_.push_back(packet);
    const Packet& message = packets_[packet];
    Node& to = node(message.to);
    const std::size_t size = message.bytes.size();
    const bool lost = !to.replica || to.waiting_bytes + size > detail::waiting_bytes_max;
    if (is_traced()) trace_message(lost, message.from, message.to, message.bytes);
    if (lost) {
        counters_.messages_lost += 1;
        return;
    }
    counters_.messages_delivered += 1;
    mix(1, (std::uint64_t{message.from.value} << 32) | message.to.value, hash64(message.bytes, 0));
    to.waiting_bytes += size;
    to.replica->receive(message.from, message.bytes);
    note_deadline(to);
    if (to.wake_at == never) to.wake_at = now_ + draw(start_rng_, {}, options_.poll_delay_max);
}

void Simulation::poll(Node& node) {
    COORD_ASSERT(node.replica && !node.paused && !node.polling);
    node.wake_at = never;
    node.waiting_bytes = 0;
    node.polled_at = now_;
    node.polling = true;
    counters_.polls += 1;
    const std::int64_t wall_ms = detail::wall_start_ms + node.wall_error_ms + now_.ns / 1000000;
    node.replica->poll(node.clock(now_), wall_ms);
    node.polling = false;
    mix(2, node.id.value, node.storage.appended());
    if (node.doomed) {
        stop(node);
        return;
    }
    schedule_flush(node);
    note_deadline(node);
    node.deadline_at = node.when(node.deadline);
    counters_.polls_wanted += node.deadline_at <= now_ ? 1u : 0u;
}

// A disk does one flush after the other; the next one is of everything that came meanwhile.
void Simulation::schedule_flush(Node& node) {
    const Sequence flushed = node.storage.flushed();
    COORD_ASSERT(node.storage.durable() <= flushed);
    if (node.is_flushing || flushed == node.storage.durable()) return;
    node.is_flushing = true;
    const Time begin = (std::max)(now_, node.disk_free_at);
    const SimulatedDisk& disk = options_.disk;
    node.disk_free_at = begin + draw(disk_rng_, disk.flush_min, disk.flush_max);
    schedule(node.disk_free_at, EventKind::durable, node.id.value - 1, node.starts, flushed);
}

void Simulation::run_for(Duration duration) {
    COORD_ASSERT(duration.ns >= 0);
    const Time end = now_ + duration;
    while (advance(end)) {
    }
    COORD_ASSERT(now_ == end);
}

bool Simulation::run_until(const Callback<bool()>& condition, Duration limit) {
    COORD_ASSERT(limit.ns >= 0);
    const Time end = now_ + limit;
    while (!condition()) {
        if (!advance(end)) return condition();
    }
    return true;
}

// A new call of the blocking face is known by the deadline that it moved.
Callback<bool()> Simulation::pump(Duration limit) {
    COORD_ASSERT(limit.ns > 0);
    return [this, limit, calls = UINT64_MAX, end = now_]() mutable {
        for (const auto& each : nodes_) (void)due_at(*each);
        if (calls != calls_) calls = calls_, end = now_ + limit;
        if (now_ <= end && advance(end)) return true;
        calls = UINT64_MAX;
        return false;
    };
}

void Simulation::after(Duration delay, Callback<void()> action) {
    COORD_ASSERT(delay.ns >= 0 && action);
    if (free_actions_.empty()) {
        free_actions_.push_back(static_cast<std::uint32_t>(actions_.size()));
        actions_.push();
    }
    const std::uint32_t slot = free_actions_.back();
    free_actions_.pop_back();
    actions_[slot] = std::move(action);
    schedule(now_ + delay, EventKind::action, slot);
}

// Replicas

Replica& Simulation::replica(Which which) {
    COORD_ASSERT(is_running(which));
    return *node(which).replica;
}

MemoryStorage& Simulation::storage(Which which) { return node(which).storage; }
bool Simulation::is_running(Which which) const { return node(which).replica.get() != nullptr; }
bool Simulation::is_paused(Which which) const { return node(which).paused; }

PeerId Simulation::leader() const {
    PeerId best;
    std::uint32_t epoch = 0;
    for (const auto& each : nodes_) {
        if (!each->replica) continue;
        const ReplicaStatus status = each->replica->status();
        if (status.role != Role::leading || !status.serving || status.epoch < epoch) continue;
        best = each->id, epoch = status.epoch;
    }
    return best;
}

// A start has entropy of its own, and a monotonic clock whose origin is anywhere within a day.
COORD_RARE
void Simulation::start(Node& node) {
    COORD_ASSERT(!node.replica && !node.polling);
    node.starts += 1;
    node.doomed = false, node.paused = false, node.sends_left = UINT32_MAX;
    node.waiting_bytes = 0;
    node.wake_at = never;
    node.polled_at = now_ - detail::poll_gap;
    node.origin = Time{} + draw(clock_rng_, {}, seconds(86400));
    ReplicaOptions options = options_.replica;
    options.id = node.id;
    options.entropy = start_rng_.next();
    if (options_.disk.flush_max.ns > 0) node.storage.hold_flushes();
    mix(3, node.id.value, node.storage.durable());
    ReplicaObserver& own = *this;
    node.replica = detail::Owned<Replica>(new Replica(options, node.storage, node, &own));
    schedule_flush(node);
    note_deadline(node);
    node.deadline_at = node.when(node.deadline);
}

void Simulation::stop(Node& node) {
    COORD_ASSERT(node.replica && !node.polling);
    if (before_crash_) before_crash_(node.id);
    const std::uint64_t pending = node.storage.appended() - node.storage.durable();
    const std::uint64_t kept = options_.disk.torn ? disk_rng_.between(0, pending) : 0;
    node.replica = {};
    node.storage.crash(static_cast<std::size_t>(kept));
    node.is_flushing = false;
    node.disk_free_at = now_;
    node.doomed = false;
    counters_.crashes += 1;
    counters_.records_lost += pending - kept;
    mix(4, node.id.value, kept);
    if (!is_traced()) return;
    trace('n', node.id, {}, detail::text_of("crashes, %llu records lost", pending - kept));
}

void Simulation::crash(Which which) {
    COORD_ASSERT(is_running(which));
    if (node(which).polling) {
        node(which).doomed = true;
    } else {
        stop(node(which));
    }
}

void Simulation::crash_at_send(Which which, std::uint32_t sends) {
    COORD_ASSERT(is_running(which) && sends < UINT32_MAX);
    node(which).sends_left = sends;
}

void Simulation::restart(Which which) {
    COORD_ASSERT(!is_running(which));
    counters_.restarts += 1;
    if (is_traced()) trace('n', PeerId{which.number}, {}, "restarts");
    start(node(which));
}

void Simulation::pause(Which which) {
    counters_.pauses += 1;
    node(which).paused = true;
    mix(5, which.number, 1);
    if (is_traced()) trace('n', PeerId{which.number}, {}, "pauses");
}

void Simulation::resume(Which which) {
    node(which).paused = false;
    node(which).wake_at = (std::min)(node(which).wake_at, now_);
    mix(5, which.number, 0);
    if (is_traced()) trace('n', PeerId{which.number}, {}, "resumes");
}

void Simulation::stall(Which which, Duration duration) {
    COORD_ASSERT(duration.ns >= 0);
    counters_.stalls += 1;
    node(which).storage.hold_flushes();
    node(which).disk_free_at = (std::max)(node(which).disk_free_at, now_ + duration);
    if (is_traced()) trace('n', PeerId{which.number}, {}, "disk stalls");
}

// It wakes the replica as a message does.
void Simulation::forget(Which which, Which peer) {
    COORD_ASSERT(is_running(which) && which.number != peer.number);
    COORD_ASSERT(peer.number >= 1 && peer.number <= size());
    Node& own = node(which);
    counters_.hints += 1;
    mix(12, which.number, peer.number);
    if (is_traced()) {
        trace('n', own.id, {}, detail::text_of("hears that %llu is gone", peer.number));
    }
    own.replica->forget(PeerId{peer.number});
    note_deadline(own);
    if (own.wake_at == never) own.wake_at = now_ + draw(start_rng_, {}, options_.poll_delay_max);
}

Time Simulation::clock(Which which) const { return node(which).clock(now_); }
Time Simulation::when(Which which, Time clock) const { return node(which).when(clock); }

void Simulation::advance_clock(Which which, Duration by) {
    COORD_ASSERT(by.ns >= 0);
    node(which).origin = node(which).origin + by;
    node(which).deadline_at = node(which).when(node(which).deadline);
    mix(6, which.number, static_cast<std::uint64_t>(by.ns));
}

void Simulation::advance_wall_clock(Which which, Duration by) {
    node(which).wall_error_ms += by.ns / 1000000;
    mix(7, which.number, static_cast<std::uint64_t>(by.ns));
}

// Network

void Simulation::send(Node& from, PeerId to, BytesView bytes) {
    COORD_ASSERT(bytes.size() <= options_.message_bytes_max);
    COORD_ASSERT(to != from.id);
    counters_.messages_sent += 1;
    const SimulatedNetwork& network = options_.network;
    const bool silent = from.doomed && from.sends_left == 0;
    if (silent || link(from.id, to).cut || network_rng_.chance(network.loss_permille)) {
        counters_.messages_lost += 1;
        if (is_traced() && !silent) trace_message(true, from.id, to, bytes);
        return;
    }
    transmit(from, to, bytes, false);
    if (network.third_party_permille > 0) overhear(from.id, to, bytes);
    if (network_rng_.chance(network.repeat_permille)) transmit(from, to, bytes, true);
    if (from.sends_left == UINT32_MAX) return;
    from.sends_left -= from.sends_left > 0 ? 1u : 0u;
    from.doomed = from.doomed || from.sends_left == 0;
}

std::uint32_t Simulation::take_packet(PeerId from, PeerId to, BytesView bytes) {
    if (free_packets_.empty()) {
        free_packets_.push_back(static_cast<std::uint32_t>(packets_.size()));
        packets_.push();
    }
    const std::uint32_t slot = free_packets_.back();
    free_packets_.pop_back();
    Packet& packet = packets_[slot];
    packet.from = from, packet.to = to;
    packet.bytes.assign(bytes.data(), bytes.size());
    return slot;
}

// The third party keeps some of each time, so that there are messages of every life among them.
COORD_RARE
void Simulation::overhear(PeerId from, PeerId to, BytesView bytes) {
    Rng& rng = third_rng_;
    const bool has_room = overheard_.size() < detail::overheard_max;
    if (has_room || rng.chance(50)) {
        if (has_room) overheard_.push();
        const std::size_t place = static_cast<std::size_t>(rng.below(overheard_.size()));
        Packet& kept = overheard_[has_room ? overheard_.size() - 1 : place];
        kept.from = from, kept.to = to;
        kept.bytes.assign(bytes.data(), bytes.size());
    }
    if (!rng.chance(options_.network.third_party_permille)) return;
    const Packet& old = overheard_[static_cast<std::size_t>(rng.below(overheard_.size()))];
    const std::uint32_t slot = take_packet(old.from, old.to, old.bytes);
    forge(packets_[slot]);
    counters_.messages_forged += 1;
    schedule(now_ + draw(rng, {}, milliseconds(20)), EventKind::message, slot);
}

void Simulation::forge(Packet& packet) {
    Rng& rng = third_rng_;
    switch (rng.below(8)) {
        case 0: std::swap(packet.from, packet.to); break;
        case 1: packet.to = PeerId{static_cast<std::uint32_t>(rng.between(1, size()))}; break;
        case 2: packet.from = PeerId{static_cast<std::uint32_t>(rng.between(1, size()))}; break;
        case 3: packet.bytes = Bytes(Seals::content(packet.bytes)); break;
        case 4: {
            if (packet.bytes.empty()) break;
            char& one = packet.bytes[static_cast<std::size_t>(rng.below(packet.bytes.size()))];
            one = static_cast<char>(one ^ (1 << rng.below(8)));
            break;
        }
        default: break;  // as it was
    }
}

void Simulation::set_network(const SimulatedNetwork& network) {
    COORD_ASSERT(network.third_party_permille == 0 || !options_.replica.ensemble_keys.empty());
    options_.network = network;
}

void Simulation::transmit(Node& from, PeerId to, BytesView bytes, bool repeated) {
    const std::uint32_t slot = take_packet(from.id, to, bytes);
    Packet& packet = packets_[slot];
    const SimulatedNetwork& network = options_.network;
    Rng& rng = network_rng_;
    Time arrival = now_ + draw(rng, network.latency_min, network.latency_max);
    const bool delayed = rng.chance(network.delay_permille);
    if (delayed || repeated) {
        arrival = arrival + draw(rng, {}, network.delay_max);
    } else {
        Time& last = link(from.id, to).last_arrival;
        last = arrival = (std::max)(arrival, last);
    }
    if (!bytes.empty() && rng.chance(network.damage_permille)) {
        char& damaged = packet.bytes[static_cast<std::size_t>(rng.below(bytes.size()))];
        damaged = static_cast<char>(damaged ^ (1 << rng.below(8)));
        counters_.messages_damaged += 1;
    }
    counters_.messages_repeated += repeated ? 1u : 0u;
    counters_.messages_delayed += delayed ? 1u : 0u;
    schedule(arrival, EventKind::message, slot);
}

void Simulation::partition(Group one, Group other) {
    COORD_ASSERT(one.size() > 0 && other.size() > 0);
    for (const Which a : one) {
        for (const Which b : other) cut(a, b), cut(b, a);
    }
}

void Simulation::isolate(Which which) {
    for (std::uint32_t other = 1; other <= size(); other++) {
        if (other != which.number) cut(which, other), cut(other, which);
    }
}

void Simulation::cut(Which from, Which to) {
    COORD_ASSERT(from.number != to.number);
    counters_.cuts += link(from, to).cut ? 0u : 1u;
    link(from, to).cut = true;
    if (!is_traced()) return;
    trace('n', PeerId{from.number}, {}, detail::text_of("no way to %llu", to.number));
}

void Simulation::heal(Which from, Which to) {
    link(from, to).cut = false;
    if (!is_traced()) return;
    trace('n', PeerId{from.number}, {}, detail::text_of("a way to %llu", to.number));
}

void Simulation::heal() {
    for (Link& each : links_) each.cut = false;
    note("every link is whole");
}

void Simulation::set_disk(const SimulatedDisk& disk) {
    COORD_ASSERT(disk.flush_min.ns >= 0 && disk.flush_min <= disk.flush_max);
    options_.disk = disk;
    if (disk.flush_max.ns == 0) return;  // what is held is released in its time
    for (const auto& each : nodes_) each->storage.hold_flushes();
}

// Observation

void Simulation::on_role(PeerId id, Role role, PeerId leader, std::uint32_t epoch) {
    mix(8, (std::uint64_t{id.value} << 32) | static_cast<std::uint64_t>(role),
        (std::uint64_t{leader.value} << 32) | epoch);
    if (is_traced()) {
        Bytes text = name(role);
        const bool follows = role == Role::following || role == Role::observing;
        if (follows) text += detail::text_of(" %llu", leader.value);
        trace('n', id, {}, text);
    }
    if (observer_ != nullptr) observer_->on_role(id, role, leader, epoch);
}

void Simulation::on_established(PeerId id, std::uint32_t epoch, Zxid initial) {
    mix(9, id.value, initial.value);
    if (is_traced()) trace('n', id, {}, detail::text_of("established, epoch %llu", epoch));
    if (observer_ != nullptr) observer_->on_established(id, epoch, initial);
}

void Simulation::on_applied(PeerId id, const Txn& txn, const Outcome* outcome,
                            std::uint64_t digest) {
    mix(10, txn.zxid.value, digest);
    if (is_traced()) {
        trace('n', id, {},
              detail::text_of("applies %llu.%llu", txn.zxid.epoch(), txn.zxid.counter()));
    }
    if (observer_ != nullptr) observer_->on_applied(id, txn, outcome, digest);
}

void Simulation::on_installed(PeerId id, Zxid zxid, std::uint64_t digest) {
    mix(11, zxid.value, digest);
    if (is_traced()) trace('n', id, {}, "installs a snapshot");
    if (observer_ != nullptr) observer_->on_installed(id, zxid, digest);
}

void Simulation::on_log(PeerId id, const LogLine& line) {
    if (observer_ != nullptr) observer_->on_log(id, line);
}

void Simulation::note(BytesView text) {
    if (is_traced()) trace('n', {}, {}, text);
}

COORD_RARE
void Simulation::trace(char kind, PeerId from, PeerId to, BytesView text) {
    COORD_ASSERT(is_traced());
    if (lines_.size() == options_.trace_lines) lines_.pop();
    Line& line = lines_.push();
    line.at = now_;
    line.kind = kind;
    line.from = from.value, line.to = to.value;
    line.text.assign(text.data(), text.size());
}

COORD_RARE
void Simulation::trace_message(bool lost, PeerId from, PeerId to, BytesView bytes) {
    Message message;
    Bytes text = "damaged";
    char kind = lost ? 'x' : 'm';
    if (decode_message(Seals::content(bytes), message) == Errc::ok) {
        text = name(message.type);
        if (message.epoch != 0) text += detail::text_of(" e%llu", message.epoch);
        if (message.zxid != Zxid{}) {
            text += detail::text_of(" %llu.%llu", message.zxid.epoch(), message.zxid.counter());
        }
        const bool beat = message.type == MessageType::ping || message.type == MessageType::pong;
        if (beat && !lost) kind = 'h';
    }
    trace(kind, from, to, text);
}

COORD_RARE
Bytes Simulation::trace_text() const {
    Bytes out;
    for (std::size_t i = 0; i < lines_.size(); i++) {
        const Line& line = lines_[i];
        const std::uint64_t us = static_cast<std::uint64_t>(line.at.ns) / 1000;
        out += detail::text_of("%6llu.%06llu  ", us / 1000000, us % 1000000);
        out += line.from == 0 ? "-" : detail::text_of("%llu", line.from);
        const char* const arrow = line.kind == 'x' ? " -x %llu" : " -> %llu";
        if (line.to != 0) out += detail::text_of(arrow, line.to);
        out += "  ", out += line.text, out += '\n';
    }
    return out;
}

COORD_RARE
Bytes Simulation::trace_mermaid() const {
    Bytes out = "sequenceDiagram\n";
    for (std::uint32_t i = 1; i <= size(); i++) {
        out += detail::text_of("    participant R%llu\n", i);
    }
    for (std::size_t i = 0; i < lines_.size(); i++) {
        const Line& line = lines_[i];
        if (line.kind == 'h') continue;
        const std::uint32_t from = (std::max)(line.from, 1u);
        const char* const arrow = line.kind == 'x' ? "    R%llu-xR%llu" : "    R%llu->>R%llu";
        const bool is_of_all = line.from == 0 && size() > 1;
        const char* const over = is_of_all ? "    Note over R%llu,R%llu" : "    Note over R%llu";
        out += line.to != 0 ? detail::text_of(arrow, from, line.to)
                            : detail::text_of(over, from, size());
        out += ": ", out += line.text, out += '\n';
    }
    return out;
}

}  // inline namespace COORD_ABI
}  // namespace coord

#endif  // COORD_IMPLEMENTATION
