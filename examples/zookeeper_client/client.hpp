// A client of ZooKeeper's servers with the interface of a coord::Session, so that a program, and
// coord's recipes, run unchanged on the ensemble that there is already. One thread: the one that
// polls. Nothing here opens a socket or reads a clock; sockets.hpp does.
//
//     zookeeper_client::Options options;
//     std::string error = options.read("one:2181,two:2181/app");
//     zookeeper_client::Sockets sockets;
//     zookeeper_client::Client client(options, sockets);
//     const auto pump = [&] { return sockets.turn(client, coord::milliseconds(100)), true; };
//     auto session = coord::Sync::open(client, {}, pump);
//     coord::Lock lock(*session, "/locks/door");
//
// A session is a connection. While that is gone it is suspended, and the client looks for another
// server, where it goes on: reads are asked for again, watches are set again, and what has not been
// sent is sent. A write that had been sent and not answered is outcome_unknown then, since no
// server can say what became of it; Session::unresolved has it, and a linearizable read shows it.
// It is never sent a second time. coord::Lock and coord::Barrier look such writes up by themselves.
//
// What a replica of coord's does and a ZooKeeper cannot is refused, in its turn, as unimplemented:
//
//   guards, conditions of a multi, create_or_set, create_with_parents, take_over, remove_all
//   set_acl in a multi; reconfig (use ZooKeeper's own tools)
//   Query::list; in one read of several all but get and children, which come without a Stat
//   subscribe and on_changes; DoubleBarrier, which is made of lists and conditions
//
// And this is not the same, though it is there:
//
//   a page of children          is cut here, of an answer that has all of them
//   linearizable, at_least      a sync goes ahead of the read. ZooKeeper's sync asks its leader,
//                               which may have lost its place without knowing: for as long as that
//                               lasts a read may be older than it should
//   WatchEvent::zxid            0, where the server does not say it (before 3.9)
//   watch_since                 is ZooKeeper's setWatches: of one that stays nothing is told that
//                               was missed
//   Part of a create in a multi has no time in its Stat
//   certain_until               two thirds of the timeout, less a twentieth for clocks, after what
//                               the server has answered last was sent: Curator gives up its locks
//                               at that time, too. It holds where servers that lose their leader
//                               notice it within a third of the timeout. Those of ZooKeeper may
//                               take syncLimit ticks: so take a timeout of three times that, or
//                               hand the fencing token, the czxid, to what the lock guards
//   a write in doubt            is what a linearizable read shows of it, since the servers refuse
//                               what still comes of a session by way of the server before. By the
//                               same one, for the moment in which it has not read all of the
//                               connection that is gone, ZooKeeper does not, and Curator cannot
//                               rule that out either. So the next server is tried first
//   a session that is attached elsewhere is not told so (state moved): both hold it in turns
//   many limits                 are the servers': a frame (jute.maxbuffer), above all
#pragma once

#include "requests.hpp"

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace zookeeper_client {

struct Address {
    std::string host;
    int port = 0;
};

struct Options {
    std::vector<Address> servers;
    Bytes chroot;                       // what "/" is there; it must be there before it is used
    std::uint64_t entropy = 1;          // random, another at each start: who is tried first
    std::size_t frame_bytes_max = 1024 * 1024 - 1;  // of a request, as the servers' jute.maxbuffer
    std::size_t answer_bytes_max = 16 * 1024 * 1024;

    // A connect string: host:port,[v6]:port/chroot; the port is 2181 where it is not said. RETURNS
    // "", or what is wrong with it.
    std::string read(const std::string& text) {
        const std::size_t slash = text.find('/');
        chroot = slash == std::string::npos ? Bytes() : text.substr(slash);
        if (!chroot.empty() && !coord::is_valid_path(chroot)) return chroot + " is no path";
        std::string list = text.substr(0, slash) + ",";
        for (std::size_t comma; (comma = list.find(',')) != std::string::npos;) {
            const std::string one = list.substr(0, comma);
            list.erase(0, comma + 1);
            const std::size_t colon = one.rfind(':');
            const bool has_port = colon != std::string::npos && one.back() != ']';
            Address address{one.substr(0, has_port ? colon : one.size()), 2181};
            if (has_port) address.port = number(one.substr(colon + 1));
            const bool is_v6 = address.host.size() > 2 && address.host[0] == '[';
            if (is_v6) address.host = address.host.substr(1, address.host.size() - 2);
            if (address.host.empty() || address.port <= 0 || address.port > 65535) {
                return "\"" + one + "\" is no host:port";
            }
            servers.push_back(std::move(address));
        }
        return "";
    }

private:
    static int number(const std::string& text) {
        int value = 0;
        for (const char c : text) {
            if (c < '0' || c > '9' || value > 65535) return -1;
            value = value * 10 + (c - '0');
        }
        return text.empty() ? -1 : value;
    }
};

using LinkId = std::uint64_t;

// What moves the bytes. It tells the client of what comes by connected, receive and closed, in
// whatever call, but not within these.
class Network {
public:
    virtual ~Network() = default;
    virtual void connect(LinkId link, const Address& to) = 0;
    virtual void send(LinkId link, BytesView bytes) = 0;  // lent for the call
    virtual void close(LinkId link) = 0;                  // what was sent before may be lost
};

class Client final : public coord::Service {
public:
    static constexpr std::size_t in_flight_max = 256;   // of one session, on its connection
    static constexpr std::size_t waiting_max = 1024;    // of one session: too_many; twice that of
                                                        // removes and closes
    static constexpr std::size_t unresolved_max = 4096;

    Client(Options options, Network& network)
        : options_(std::move(options)), chroot_(options_.chroot), network_(network),
          rng_(options_.entropy) {
        COORD_ASSERT(!options_.servers.empty());
        first_ = static_cast<std::size_t>(rng_.below(options_.servers.size()));
    }
    ~Client() override {
        for (const auto& session : sessions_) hang_up(*session);
    }

    // Of a connection that was asked for; the last one: it could not be made, or is gone.
    void connected(LinkId link) {
        if (Held* held = find_link(link)) held->is_connected = true;
    }
    void receive(LinkId link, BytesView bytes) {
        if (Held* held = find_link(link)) held->in.append(bytes);
    }
    void closed(LinkId link) {
        if (Held* held = find_link(link)) held->is_cut = true;
    }
    // One step, with the caller's monotonic clock. Callbacks run here.
    void poll(coord::Time now);
    // When poll must be called at the latest; earlier when the network has told something.
    coord::Time next_deadline() const;
    // Where a session is connected to; null while it is not.
    const Address* server_of(coord::SessionId session) const {
        const Held* const held = find(session, coord::any_holding);
        const bool is_there = held != nullptr && held->phase == Phase::ready;
        return is_there ? &options_.servers[held->server] : nullptr;
    }

    bool is_polling() const override { return in_poll_; }
    coord::Time now() const override { return now_; }
    bool has_failed() const override { return false; }
    void at(coord::Time time, coord::Callback<void()> call) override {
        timers_.emplace(time.ns, std::move(call));
    }
    void open_session(const coord::SessionOptions& options, coord::OnOpened done) override;
    void attach_session(coord::SessionId session, const coord::SessionPassword& password,
                        coord::OnOpened done) override;
    std::uint64_t session_holding(coord::SessionId session) const override {
        const Held* const held = find(session, coord::any_holding);
        return held == nullptr ? 0 : held->holding;
    }
    coord::SessionPassword session_password(coord::SessionId session,
                                            std::uint64_t holding) const override {
        const Held* const held = find(session, holding);
        return held == nullptr ? coord::SessionPassword{} : held->password;
    }
    void submit(coord::SessionId session, coord::Request&& request) override;
    coord::SessionState session_state(coord::SessionId session,
                                      std::uint64_t holding) const override {
        const Held* const held = find(session, holding);
        if (held != nullptr) return held->state;
        const bool is_another = find(session, coord::any_holding) != nullptr;
        return is_another ? coord::SessionState::moved : coord::SessionState::expired;
    }
    void on_session_state(coord::SessionId session, coord::OnState listener,
                          std::uint64_t holding) override {
        if (Held* held = find(session, holding)) held->listeners.push_back(std::move(listener));
    }
    coord::Duration session_timeout(coord::SessionId session) const override {
        const Held* const held = find(session, coord::any_holding);
        return held == nullptr ? coord::Duration{} : held->timeout;
    }
    coord::Time certain_until(coord::SessionId session, std::uint64_t holding) const override {
        const Held* const held = find(session, holding);
        if (held == nullptr || held->is_closing) return {};
        return held->certain_from + held->timeout * 2 / 3 / 20 * 19;
    }
    coord::Zxid answer_zxid() const override { return answer_zxid_; }
    std::vector<coord::Unresolved> unresolved(coord::SessionId session,
                                              std::uint64_t holding) const override;

private:
    enum class Phase : std::uint8_t { pausing, connecting, greeting, ready, over };
    enum class Stage : std::uint8_t { waiting, sent, answered };
    struct Pending : Asked {
        Stage stage = Stage::waiting;
        bool has_sync = false;       // one has been sent ahead of it, and not answered yet
        std::int32_t xid = 0;
        coord::Time sent_at;
        Answer answer;
    };
    struct Watch {
        coord::WatchKind kind;
        bool is_absent;              // of a node that was not there
        std::shared_ptr<const coord::Watcher> call;
    };
    struct Held {
        coord::SessionId id;
        coord::SessionPassword password;
        std::uint64_t holding = 0;
        coord::Duration timeout;     // as asked for; then as agreed upon
        coord::OnOpened opened;      // until that
        bool is_opening = true;
        bool is_closing = false;
        coord::SessionState state = coord::SessionState::suspended;
        std::vector<coord::OnState> listeners;
        std::deque<Pending> pending;
        std::size_t looked = 0;      // of pending, up to where none waits to be sent
        std::size_t in_flight = 0;
        std::map<Bytes, std::vector<Watch>> watches;
        std::vector<std::pair<Bytes, Bytes>> identities;
        std::size_t identities_due = 0;  // of these, given again and not answered
        // The connection.
        Phase phase = Phase::pausing;
        LinkId link = 0;
        std::size_t server = 0;
        std::size_t failures = 0;    // one after the other
        coord::Time since;           // of the phase; of pausing when it ends
        bool is_connected = false;   // told by the network
        bool is_cut = false;
        Bytes in;
        std::int32_t next_xid = 1;
        coord::Zxid last_zxid;
        coord::Time heard_at, sent_at, pinged_at, greeted_at;
        bool is_pinged = false;      // without an answer yet
        coord::Time certain_from;
    };
    using HeldPointer = std::shared_ptr<Held>;

    Held* find_link(LinkId link) {
        for (const HeldPointer& held : sessions_) {
            if (held->link == link) return held.get();
        }
        return nullptr;
    }
    Held* find(coord::SessionId id, std::uint64_t holding) const {
        const auto found = by_id_.find(id.value);
        if (found == by_id_.end()) return nullptr;
        const bool is_its = holding == coord::any_holding || found->second->holding == holding;
        return is_its ? found->second.get() : nullptr;
    }
    void start(HeldPointer held);
    void later(coord::Callback<void()> call) { later_.push_back(std::move(call)); }
    void step(Held& held);
    void dial(Held& held);
    void hang_up(Held& held);
    void lose(Held& held);
    void greet(Held& held);
    void take_frames(Held& held);
    bool take_frame(Held& held, BytesView& frame, std::size_t& at);
    bool on_greeting(Held& held, BytesView frame);
    bool on_frame(Held& held, BytesView frame);
    bool on_answer(Held& held, Pending& pending, coord::Zxid zxid, Errc error, BytesView body);
    bool on_event(Held& held, coord::Zxid zxid, BytesView body);
    void set_watches_again(Held& held);
    void send_frame(Held& held, std::int32_t xid, std::int32_t type, BytesView body);
    void send_waiting(Held& held);
    bool may_send(const Held& held, const Pending& pending) const;
    void send(Held& held, Pending& pending);
    void drain(Held& held);
    void keep_watch(Held& held, const Pending& pending, Errc error);
    bool forget_watches(Held& held, Pending& pending);
    void be_over(Held& held, Errc error, coord::SessionState told);
    void tell_state(Held& held, coord::SessionState state);
    // For so long a server may be silent, or take to be connected to.
    static coord::Duration patience(const Held& held) { return held.timeout * 2 / 3; }
    coord::Duration to_connect(const Held& held) const {
        const auto servers = static_cast<std::int64_t>(options_.servers.size());
        return (std::max)(held.timeout / servers, coord::milliseconds(100));
    }

    const Options options_;
    const Chroot chroot_;
    Network& network_;
    coord::Rng rng_;
    std::size_t first_ = 0;
    coord::Time now_;
    bool in_poll_ = false;
    LinkId links_ = 0;
    std::vector<HeldPointer> sessions_;
    std::map<std::uint64_t, HeldPointer> by_id_;
    std::multimap<std::int64_t, coord::Callback<void()>> timers_;
    std::deque<coord::Callback<void()>> later_;  // in the next poll
    std::deque<coord::Unresolved> unresolved_;   // of which the session has been told so
    coord::Zxid answer_zxid_;
};

// -------------------------------------------------------------------------------------------------
// Sessions

inline void Client::start(HeldPointer held) {
    held->holding = rng_.next() & 0xffff;
    held->server = first_;
    held->since = now_;
    sessions_.push_back(std::move(held));
}

inline void Client::open_session(const coord::SessionOptions& options, coord::OnOpened done) {
    const auto held = std::make_shared<Held>();
    held->timeout = options.timeout;
    held->opened = std::move(done);
    start(held);
}

inline void Client::attach_session(coord::SessionId session,
                                   const coord::SessionPassword& password, coord::OnOpened done) {
    if (session == coord::SessionId{}) {
        return later([done = std::move(done)] {
            if (done) done(Errc::session_expired);
        });
    }
    const auto held = std::make_shared<Held>();
    held->id = session, held->password = password;
    held->timeout = coord::SessionOptions().timeout;
    held->opened = std::move(done);
    start(held);
}

inline void Client::submit(coord::SessionId session, coord::Request&& request) {
    using Kind = coord::Request::Kind;
    Held* const held = find(session, request.holding);
    Errc error = Errc::ok;
    const bool frees = request.kind == Kind::remove || request.kind == Kind::close;
    if (held == nullptr) {
        const bool is_another = find(session, coord::any_holding) != nullptr;
        error = is_another ? Errc::session_moved : Errc::session_expired;
    } else if (held->is_closing) {
        error = Errc::session_expired;
    } else if (held->pending.size() >= waiting_max * (frees ? 2 : 1)) {
        error = Errc::too_many;
    }
    Pending pending;
    pending.kind = request.kind;
    pending.root_bytes = request.root_bytes;
    pending.watcher_type = request.watcher_type;
    pending.done = request.done;
    if (error != Errc::ok) {
        pending.answer.error = error;
        const auto refused = std::make_shared<Pending>(std::move(pending));
        return later([refused] { complete(*refused, std::move(refused->answer)); });
    }
    pending.path.assign(request.path);
    if (request.kind == Kind::add_auth) pending.data.assign(request.data);
    pending.page = std::move(request.page);
    pending.least = request.least, pending.since = request.since;
    pending.watched = request.watched;
    if (request.watcher) {
        pending.watcher = std::make_shared<const coord::Watcher>(std::move(request.watcher));
    }
    pending.error = Encoder(chroot_, request, pending).encode();
    const bool is_large = pending.body.size() + 8 > options_.frame_bytes_max;
    if (pending.error == Errc::ok && is_large) pending.error = Errc::too_large;
    held->is_closing = held->is_closing || request.kind == Kind::close;
    held->pending.push_back(std::move(pending));
}

inline std::vector<coord::Unresolved> Client::unresolved(coord::SessionId session,
                                                         std::uint64_t holding) const {
    std::vector<coord::Unresolved> all;
    for (const coord::Unresolved& one : unresolved_) {
        if (one.session == session) all.push_back(one);
    }
    const Held* const held = find(session, holding);
    if (held == nullptr) return all;
    for (const Pending& pending : held->pending) {
        if (pending.stage != Stage::sent || !pending.is_write()) continue;
        all.push_back({session, static_cast<std::uint64_t>(pending.xid), pending.op_code(),
                       pending.path});
    }
    return all;
}

inline void Client::tell_state(Held& held, coord::SessionState state) {
    const std::vector<coord::OnState> told = held.listeners;
    for (const coord::OnState& listener : told) listener(state);
}

// What was not answered never will be: of what had been sent that is known already, but where the
// session itself has ended with it on its way.
inline void Client::be_over(Held& held, Errc error, coord::SessionState told) {
    if (held.phase == Phase::over) return;
    lose(held);
    held.phase = Phase::over;
    const auto found = by_id_.find(held.id.value);
    const bool is_known = found != by_id_.end() && found->second.get() == &held;
    held.state = told == coord::SessionState::moved ? told : coord::SessionState::expired;
    if (is_known) by_id_.erase(found);
    held.watches.clear();
    if (held.is_opening) {
        held.is_opening = false;
        if (held.opened) held.opened(error);
        return;
    }
    std::deque<Pending> pending = std::move(held.pending);
    held.pending.clear();
    for (Pending& one : pending) {
        const bool is_close = one.kind == coord::Request::Kind::close;
        if (one.stage != Stage::answered) one.answer.error = is_close ? Errc::ok : error;
        if (is_close && told != coord::SessionState::moved) told = coord::SessionState::closed;
        complete(one, std::move(one.answer));
    }
    tell_state(held, told);
}

// -------------------------------------------------------------------------------------------------
// Connections

inline void Client::dial(Held& held) {
    held.link = ++links_;
    held.phase = Phase::connecting, held.since = now_;
    held.is_connected = held.is_cut = false;
    held.in.clear();
    network_.connect(held.link, options_.servers[held.server]);
}

inline void Client::hang_up(Held& held) {
    if (held.link != 0) network_.close(held.link);
    held.link = 0;
    held.in.clear();
    held.is_connected = held.is_cut = false;
}

// The connection is gone, or of no use. What was sent and has no answer is asked for again, unless
// it is a write.
inline void Client::lose(Held& held) {
    const bool was_ready = held.phase == Phase::ready;
    hang_up(held);
    held.phase = Phase::pausing;
    held.in_flight = 0, held.looked = 0;
    held.is_pinged = false;
    for (Pending& pending : held.pending) {
        pending.has_sync = false;
        if (pending.stage != Stage::sent) continue;
        pending.stage = pending.is_write() ? Stage::answered : Stage::waiting;
        if (!pending.is_write()) continue;
        pending.answer.error = Errc::outcome_unknown;
        unresolved_.push_back({held.id, static_cast<std::uint64_t>(pending.xid),
                               pending.op_code(), pending.path});
        if (unresolved_.size() > unresolved_max) unresolved_.pop_front();
    }
    // The next server at once where this one has served; where none does, slower.
    held.failures = was_ready ? 0 : held.failures + 1;
    held.server = (held.server + 1) % options_.servers.size();
    const bool has_tried_all = held.failures % options_.servers.size() == 0 && held.failures > 0;
    const std::int64_t most_ns = (std::min)(held.timeout / 8, coord::seconds(1)).ns;
    const auto bound = static_cast<std::uint64_t>((std::max)(most_ns, std::int64_t{1}));
    const auto pause = static_cast<std::int64_t>(bound / 4 + rng_.below(bound));
    held.since = now_ + coord::nanoseconds(has_tried_all ? pause : 0);
    if (was_ready) held.state = coord::SessionState::suspended;
}

inline void Client::greet(Held& held) {
    zkserver::ConnectRequest request;
    request.last_zxid = static_cast<std::int64_t>(held.last_zxid.value);
    request.timeout_ms = static_cast<std::int32_t>(
        (std::min)(held.timeout.ns / 1000000, std::int64_t{INT32_MAX}));
    request.session = held.id.value;
    coord::Writer password(request.password);
    password.u64(held.password.high), password.u64(held.password.low);
    request.has_read_only = true;
    Bytes bytes;
    request.write(bytes);
    held.phase = Phase::greeting;
    held.heard_at = held.sent_at = held.greeted_at = now_;
    network_.send(held.link, bytes);
}

inline bool Client::on_greeting(Held& held, BytesView frame) {
    zkserver::ConnectResponse response;
    if (!response.read(frame)) return false;
    if (response.timeout_ms <= 0) {
        be_over(held, Errc::session_expired, coord::SessionState::expired);
        return true;
    }
    const bool is_another = held.id != coord::SessionId{} && held.id.value != response.session;
    if (response.session == 0 || is_another) return false;
    held.id = coord::SessionId{response.session};
    held.password = response.password;
    held.timeout = coord::milliseconds(response.timeout_ms);
    held.phase = Phase::ready, held.failures = 0;
    held.state = coord::SessionState::connected;
    held.certain_from = (std::max)(held.certain_from, held.greeted_at);
    for (const auto& [scheme, credential] : held.identities) {
        Bytes body;
        JuteWriter out(body);
        out.i32(0), out.bytes(scheme), out.bytes(credential);
        send_frame(held, -4, op::auth, body);
    }
    held.identities_due = held.identities.size();
    set_watches_again(held);
    if (!held.is_opening) {
        tell_state(held, coord::SessionState::connected);
        return true;
    }
    held.is_opening = false;
    HeldPointer self;
    for (const HeldPointer& one : sessions_) {
        if (one.get() == &held) self = one;
    }
    const HeldPointer before = std::exchange(by_id_[held.id.value], self);
    if (before) be_over(*before, Errc::session_moved, coord::SessionState::moved);
    if (held.opened) std::exchange(held.opened, nullptr)(held.id);
    return true;
}

// In frames that a server takes. What was missed meanwhile comes as events at once.
inline void Client::set_watches_again(Held& held) {
    constexpr std::size_t frame_bytes = 128 * 1024;
    std::vector<Bytes> lists[5];
    std::size_t bytes = 0;
    const auto flush = [&] {
        if (bytes == 0) return;
        Bytes body;
        JuteWriter out(body);
        out.zxid(held.last_zxid);
        const bool has_staying = !lists[3].empty() || !lists[4].empty();
        for (std::size_t i = 0; i < (has_staying ? 5u : 3u); i++) out.names(lists[i]);
        send_frame(held, -8, has_staying ? op::set_watches2 : op::set_watches, body);
        for (std::vector<Bytes>& list : lists) list.clear();
        bytes = 0;
    };
    for (const auto& [path, watches] : held.watches) {
        bool is_in[5] = {};
        for (const Watch& watch : watches) {
            const bool is_data = watch.kind == coord::WatchKind::data;
            const auto kind = static_cast<std::size_t>(watch.kind);
            is_in[is_data ? (watch.is_absent ? 1u : 0u) : kind + 1] = true;
        }
        const Bytes whole = chroot_.to_server(path);
        for (std::size_t i = 0; i < 5; i++) {
            if (is_in[i]) lists[i].push_back(whole), bytes += whole.size() + 4;
        }
        if (bytes > frame_bytes) flush();
    }
    flush();
}

inline void Client::send_frame(Held& held, std::int32_t xid, std::int32_t type, BytesView body) {
    Bytes frame;
    JuteWriter out(frame);
    const std::size_t begun = out.begin();
    out.i32(xid), out.i32(type);
    frame.append(body);
    out.end(begun);
    held.sent_at = now_;
    network_.send(held.link, frame);
}

// Credentials count for what was asked for before them, too, at a server; and which watches there
// are to be removed is known when all before is answered. So these wait for that, and are waited
// for.
inline bool Client::may_send(const Held& held, const Pending& pending) const {
    using Kind = coord::Request::Kind;
    if (held.in_flight >= in_flight_max) return false;
    const bool is_alone = pending.kind == Kind::add_auth || pending.kind == Kind::remove_watches;
    if (is_alone) return held.in_flight == 0;
    const Pending& last = held.pending[held.looked == 0 ? 0 : held.looked - 1];
    const bool is_auth = last.kind == Kind::add_auth || last.kind == Kind::remove_watches;
    return !(is_auth && last.stage == Stage::sent);
}

inline void Client::send_waiting(Held& held) {
    while (held.phase == Phase::ready && held.looked < held.pending.size()) {
        Pending& pending = held.pending[held.looked];
        if (pending.stage == Stage::waiting) {
            if (!may_send(held, pending)) break;
            const bool forgets = pending.error == Errc::ok && pending.type == 0 &&
                                 pending.kind == coord::Request::Kind::remove_watches;
            if (forgets && !forget_watches(held, pending)) pending.error = Errc::no_watcher;
            if (pending.error != Errc::ok || pending.type == 0) {
                pending.stage = Stage::answered, pending.answer.error = pending.error;
                pending.answer.zxid = held.last_zxid;
            } else {
                send(held, pending);
            }
        }
        held.looked += 1;
        if (held.looked == 1) drain(held);
    }
}

inline void Client::send(Held& held, Pending& pending) {
    const coord::Zxid least = (std::max)(pending.least, pending.since);
    if (pending.is_read() && least > held.last_zxid) {
        Bytes body;
        JuteWriter(body).bytes(chroot_.path().empty() ? Bytes("/") : chroot_.path());
        pending.has_sync = true;
        send_frame(held, held.next_xid, op::sync, body);
        held.next_xid = held.next_xid == INT32_MAX ? 1 : held.next_xid + 1;
    }
    const bool is_auth = pending.kind == coord::Request::Kind::add_auth;
    pending.xid = is_auth ? -4 : held.next_xid;
    if (!is_auth) held.next_xid = held.next_xid == INT32_MAX ? 1 : held.next_xid + 1;
    pending.stage = Stage::sent, pending.sent_at = now_;
    held.in_flight += 1;
    // What it has missed it is told before the answer.
    if (pending.kind == coord::Request::Kind::watch_since) keep_watch(held, pending, Errc::ok);
    send_frame(held, pending.xid, pending.type, pending.body);
}

// -------------------------------------------------------------------------------------------------
// What comes

// RETURNS false where there is none yet, or what comes is none.
inline bool Client::take_frame(Held& held, BytesView& frame, std::size_t& at) {
    const BytesView rest = BytesView(held.in).substr(at);
    if (rest.size() < 4) return false;
    const std::int32_t size = coord::Reader(rest).i32();
    if (size < 0 || static_cast<std::size_t>(size) > options_.answer_bytes_max) {
        // An answer that is too large would be so again: who waits for it is told.
        const bool is_owed = size > 0 && held.phase == Phase::ready && !held.pending.empty() &&
                             held.pending.front().stage == Stage::sent;
        if (is_owed && !held.pending.front().is_write()) {
            held.pending.front().stage = Stage::answered;
            held.pending.front().answer.error = Errc::too_large;
        }
        held.is_cut = true;
        held.in.clear();
        return false;
    }
    const auto length = static_cast<std::size_t>(size);
    if (rest.size() < 4 + length) return false;
    frame = rest.substr(4, length);
    at += 4 + length;
    return true;
}

inline void Client::take_frames(Held& held) {
    const LinkId link = held.link;
    std::size_t at = 0;
    BytesView frame;
    while (held.link == link && take_frame(held, frame, at)) {
        const Bytes own(frame);  // callbacks may end the connection
        held.heard_at = now_;
        const bool is_good = held.phase == Phase::greeting ? on_greeting(held, own)
                                                           : on_frame(held, own);
        if (is_good) continue;
        held.is_cut = true;
        break;
    }
    if (held.link == link) held.in.erase(0, (std::min)(at, held.in.size()));
}

inline bool Client::on_frame(Held& held, BytesView frame) {
    JuteReader in(frame);
    const std::int32_t xid = in.i32();
    const auto zxid = static_cast<std::uint64_t>(in.i64());
    const auto error = static_cast<Errc>(in.i32());
    if (!in.ok()) return false;
    const BytesView body = frame.substr(16);
    if (xid == -1) return on_event(held, coord::Zxid{zxid}, body);
    if (xid == -2) {
        if (!held.is_pinged) return false;
        held.certain_from = (std::max)(held.certain_from, held.pinged_at);
        held.is_pinged = false;
        return true;
    }
    if (xid == -8) return error == Errc::ok;
    Pending* const pending = held.pending.empty() ? nullptr : &held.pending.front();
    const bool is_owed = pending != nullptr && pending->stage == Stage::sent;
    if (xid == -4 && held.identities_due > 0) {
        const std::size_t place = held.identities.size() - held.identities_due;
        held.identities_due -= 1;
        if (error == Errc::ok) return true;
        held.identities.erase(held.identities.begin() + static_cast<std::ptrdiff_t>(place));
        return false;  // one that is not taken there: on without it
    }
    if (!is_owed) return false;
    const std::int32_t due = !pending->has_sync    ? pending->xid
                             : pending->xid > 1 ? pending->xid - 1
                                                : INT32_MAX;
    if (xid != due) return false;
    held.certain_from = (std::max)(held.certain_from, pending->sent_at);
    if (pending->has_sync) {
        pending->has_sync = false;
        return error == Errc::ok;
    }
    return on_answer(held, *pending, coord::Zxid{zxid}, error, body);
}

// RETURNS false where the connection is of no use any more.
inline bool Client::on_answer(Held& held, Pending& pending, coord::Zxid zxid, Errc error,
                              BytesView body) {
    using Kind = coord::Request::Kind;
    if (error == Errc::session_moved && pending.is_write()) {
        pending.stage = Stage::waiting;  // another server has the session: nothing was done
        held.in_flight -= 1, held.looked = 0;
        return false;
    }
    if (error == Errc::session_expired && pending.kind != Kind::close) {
        pending.stage = Stage::answered, pending.answer.error = error;
        be_over(held, error, coord::SessionState::expired);
        return true;
    }
    pending.answer.zxid = zxid, pending.answer.error = error;
    if (!Decoder(chroot_, pending, held.id, body).decode(pending.answer)) {
        pending.answer = Answer();
        return false;
    }
    // From what is no answer none is taken: no server would take who has seen what is not there.
    if (zxid.value < std::uint64_t{1} << 63) held.last_zxid = (std::max)(held.last_zxid, zxid);
    pending.stage = Stage::answered;
    held.in_flight -= 1;
    const bool is_late = pending.least != coord::newest && zxid < pending.least &&
                         (error == Errc::ok || error == Errc::no_node);
    if (is_late) pending.answer.error = Errc::bad_arguments;  // the ensemble has no such state
    if (pending.kind == Kind::add_auth && error == Errc::ok) {
        held.identities.emplace_back(pending.path, pending.data);
    }
    if (pending.kind == Kind::close) {
        be_over(held, Errc::session_expired, coord::SessionState::closed);
        return true;
    }
    const bool is_read = pending.kind == Kind::exists || pending.kind == Kind::get ||
                         pending.kind == Kind::children || pending.kind == Kind::add_watch;
    if (is_read && !is_late) keep_watch(held, pending, error);
    const bool is_refused = pending.kind == Kind::add_auth && error != Errc::ok;
    drain(held);
    return !is_refused;  // a server ends the connection, too
}

// Tells those in front whose answers are there.
inline void Client::drain(Held& held) {
    while (!held.pending.empty() && held.pending.front().stage == Stage::answered) {
        Pending pending = std::move(held.pending.front());
        held.pending.pop_front();
        if (held.looked > 0) held.looked -= 1;
        answer_zxid_ = pending.answer.zxid;
        complete(pending, std::move(pending.answer));
    }
}

// -------------------------------------------------------------------------------------------------
// Watches

inline void Client::keep_watch(Held& held, const Pending& pending, Errc error) {
    using Kind = coord::Request::Kind;
    if (pending.watcher == nullptr) return;
    const bool is_absent = error == Errc::no_node;
    if (error != Errc::ok && !(is_absent && pending.kind == Kind::exists)) return;
    Watch watch{coord::WatchKind::data, is_absent, pending.watcher};
    if (pending.kind == Kind::children) watch.kind = coord::WatchKind::children;
    if (pending.kind == Kind::add_watch) {
        const bool is_all = pending.watcher_type == coord::WatcherType::persistent_recursive;
        watch.kind = is_all ? coord::WatchKind::recursive : coord::WatchKind::persistent;
    }
    if (pending.kind == Kind::watch_since) {
        watch.is_absent = pending.watched == coord::Watched::absence;
        if (pending.watched == coord::Watched::children) watch.kind = coord::WatchKind::children;
        if (pending.watched == coord::Watched::persistent) {
            watch.kind = coord::WatchKind::persistent;
        }
    }
    std::vector<Watch>& watches = held.watches[pending.path];
    for (const Watch& one : watches) {
        if (one.call == watch.call) return;  // asked for a second time, at another server
    }
    watches.push_back(std::move(watch));
}

// Those of that type, which are told so. RETURNS whether there was any. The server is told where
// nobody is left at that path: what it says of others nobody hears.
inline bool Client::forget_watches(Held& held, Pending& pending) {
    using coord::WatcherType;
    using coord::WatchKind;
    const auto found = held.watches.find(pending.path);
    if (found == held.watches.end()) return false;
    std::vector<Watch> kept, gone;
    for (Watch& watch : found->second) {
        const WatcherType type = watch.kind == WatchKind::data       ? WatcherType::data
                                 : watch.kind == WatchKind::children ? WatcherType::children
                                 : watch.kind == WatchKind::persistent
                                     ? WatcherType::persistent
                                     : WatcherType::persistent_recursive;
        const bool goes = pending.watcher_type == WatcherType::any || pending.watcher_type == type;
        (goes ? gone : kept).push_back(std::move(watch));
    }
    const bool is_empty = kept.empty();
    found->second = std::move(kept);
    if (is_empty) held.watches.erase(found);
    if (gone.empty()) return false;
    if (is_empty) {
        pending.type = op::remove_watches;
        pending.body.clear();
        JuteWriter out(pending.body);
        out.bytes(chroot_.to_server(pending.path));
        out.i32(static_cast<std::int32_t>(WatcherType::any));
    }
    std::stable_sort(gone.begin(), gone.end(),
                     [](const Watch& a, const Watch& b) { return a.kind < b.kind; });
    for (const Watch& watch : gone) {
        coord::WatchEvent event;
        event.type = watch.kind == WatchKind::data ? coord::EventType::data_watch_removed
                     : watch.kind == WatchKind::children
                         ? coord::EventType::child_watch_removed
                         : coord::EventType::persistent_watch_removed;
        event.path = pending.path, event.zxid = held.last_zxid;
        (*watch.call)(event);
    }
    return true;
}

inline bool Client::on_event(Held& held, coord::Zxid zxid, BytesView body) {
    using coord::EventType;
    using coord::WatchKind;
    JuteReader in(body);
    const auto type = static_cast<EventType>(in.i32());
    in.i32();  // the state
    const Bytes whole(in.bytes());
    if (!in.ok()) return false;
    if (type < EventType::created || type > EventType::children_changed) return true;
    coord::WatchEvent event;
    event.type = type, event.path = chroot_.from_server(whole);
    if (event.path.empty()) return true;
    if (zxid.value < std::uint64_t{1} << 63) event.zxid = zxid;
    const bool is_list = type == EventType::children_changed;
    const bool is_gone = type == EventType::deleted;
    std::vector<std::shared_ptr<const coord::Watcher>> told;
    for (BytesView at = event.path;;) {
        const bool is_here = at.size() == event.path.size();
        const auto found = held.watches.find(Bytes(at));
        if (found != held.watches.end()) {
            std::vector<Watch>& watches = found->second;
            for (const WatchKind kind : {WatchKind::data, WatchKind::children,
                                         WatchKind::persistent, WatchKind::recursive}) {
                const bool hears = kind == WatchKind::recursive ? !is_list
                                   : !is_here                   ? false
                                   : kind == WatchKind::data    ? !is_list
                                   : kind == WatchKind::children ? is_list || is_gone
                                                                 : true;
                if (!hears) continue;
                const bool stays = kind >= WatchKind::persistent;
                std::vector<Watch> kept;
                for (Watch& watch : watches) {
                    if (watch.kind == kind) told.push_back(watch.call);
                    if (watch.kind != kind || stays) kept.push_back(std::move(watch));
                }
                watches = std::move(kept);
            }
            if (watches.empty()) held.watches.erase(found);
        }
        if (at.size() <= 1) break;
        const std::size_t slash = at.rfind('/');
        at = slash == 0 ? at.substr(0, 1) : at.substr(0, slash);
    }
    for (const auto& call : told) (*call)(event);
    return true;
}

// -------------------------------------------------------------------------------------------------
// Time

inline void Client::step(Held& held) {
    const coord::SessionState before = held.state;
    if (held.phase == Phase::pausing && held.since <= now_) dial(held);
    if (held.phase == Phase::connecting && held.is_connected) greet(held);
    if (held.phase >= Phase::greeting) take_frames(held);
    if (held.phase == Phase::over) return;
    const bool is_slow = held.phase == Phase::connecting &&
                         now_ - held.since >= to_connect(held);
    const bool is_silent = held.phase >= Phase::greeting && now_ - held.heard_at >= patience(held);
    if (held.phase != Phase::pausing && (held.is_cut || is_slow || is_silent)) lose(held);
    const bool is_idle = held.phase == Phase::ready && !held.is_pinged &&
                         now_ - held.sent_at >= held.timeout / 3;
    if (is_idle) {
        held.is_pinged = true, held.pinged_at = now_;
        send_frame(held, -2, op::ping, {});
    }
    drain(held);
    const bool is_news = before == coord::SessionState::connected &&
                         held.state == coord::SessionState::suspended;
    if (is_news) tell_state(held, held.state);
}

inline void Client::poll(coord::Time now) {
    if (in_poll_) return;
    in_poll_ = true;
    now_ = (std::max)(now_, now);
    std::deque<coord::Callback<void()>> calls = std::move(later_);
    later_.clear();
    for (const auto& call : calls) call();
    const std::vector<HeldPointer> sessions = sessions_;
    for (const HeldPointer& held : sessions) step(*held);
    const auto due = timers_.upper_bound(now_.ns);  // what is added meanwhile has another turn
    std::vector<coord::Callback<void()>> timers;
    for (auto timer = timers_.begin(); timer != due; ++timer) timers.push_back(timer->second);
    timers_.erase(timers_.begin(), due);
    for (const auto& call : timers) call();
    for (const HeldPointer& held : sessions) send_waiting(*held);
    sessions_.erase(std::remove_if(sessions_.begin(), sessions_.end(),
                                   [](const HeldPointer& held) {
                                       return held->phase == Phase::over;
                                   }),
                    sessions_.end());
    in_poll_ = false;
}

inline coord::Time Client::next_deadline() const {
    coord::Time due = later_.empty() ? coord::never : now_;
    if (!timers_.empty()) due = (std::min)(due, coord::Time{timers_.begin()->first});
    for (const HeldPointer& held : sessions_) {
        const bool has_more = held->looked < held->pending.size() &&
                              may_send(*held, held->pending[held->looked]);
        switch (held->phase) {
            case Phase::pausing: due = (std::min)(due, held->since); break;
            case Phase::connecting: due = (std::min)(due, held->since + to_connect(*held)); break;
            case Phase::greeting: due = (std::min)(due, held->heard_at + patience(*held)); break;
            case Phase::ready:
                if (has_more) due = (std::min)(due, now_);
                due = (std::min)(due, held->heard_at + patience(*held));
                if (!held->is_pinged) due = (std::min)(due, held->sent_at + held->timeout / 3);
                break;
            case Phase::over: break;
        }
    }
    return due;
}

}  // namespace zookeeper_client
