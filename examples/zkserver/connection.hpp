// A client's connection, without its socket: bytes in, bytes out. And what all connections of a
// server share. Nothing here reads a clock, a file or a socket, so that a test can be the client.
//
// What a connection is asked for goes to the replica at once, up to a bound, and the replica
// answers in order. What it answers by itself (a ping, a request that is none) waits for its turn
// in the row of slots; so answers leave in the order of the requests, and each answer and each
// event as the replica tells of it. The zxid of an answer is never one of which an event is still
// to come: a client that is cut off sets its watches again as of the last zxid that it has seen.
#pragma once

#include "members.hpp"

#include <algorithm>
#include <cstdio>
#include <deque>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace zkserver {

class Service;
class Connection;

// What a callback has of a connection: it may be gone when that is called.
struct Ticket {
    Service* service = nullptr;
    std::uint32_t index = 0;
    std::uint32_t generation = 0;
    Connection* find() const;
};

enum class WatchKind : std::uint32_t { data = 0, children = 1, persistent = 2, recursive = 3 };

struct Counters {
    std::uint64_t received = 0;
    std::uint64_t sent = 0;
    std::uint64_t answers = 0;
    std::int64_t latency_min_ns = INT64_MAX;
    std::int64_t latency_max_ns = 0;
    std::int64_t latency_sum_ns = 0;

    void answered(coord::Duration time) {
        answers += 1;
        latency_min_ns = (std::min)(latency_min_ns, time.ns);
        latency_max_ns = (std::max)(latency_max_ns, time.ns);
        latency_sum_ns += time.ns;
    }
    std::int64_t min_ms() const { return answers == 0 ? 0 : latency_min_ns / 1000000; }
    std::int64_t max_ms() const { return latency_max_ns / 1000000; }
    double mean_ms() const {
        const auto sum = static_cast<double>(latency_sum_ns) / 1e6;
        return answers == 0 ? 0 : sum / static_cast<double>(answers);
    }
};

// A multi, as its parts are put to the replica. A part that ZooKeeper refuses before it looks at
// the tree is put as one that cannot succeed, so that it fails in its turn; in front of a create
// whose path is none there is a part that the answer does not show.
struct Plan {
    struct Part {
        std::int32_t type = 0;
        Errc doomed = Errc::ok;
        bool is_hidden = false;
        bool is_config = false;  // of a read: /zookeeper/config
    };
    bool is_multi = true;  // and not one request that is doomed
    std::vector<Part> parts;
    std::deque<Bytes> paths;  // of hidden parts
    // What a doomed part ends with that has failed so: of a remove the parent's ACL comes first.
    static Errc end_of(const Part& part, Errc error) {
        const bool is_first = part.type == op::remove && part.doomed == Errc::no_node &&
                              error == Errc::no_auth;
        return part.doomed == Errc::ok || is_first ? error : part.doomed;
    }
    // What a hidden part has found, that comes before what is wrong with the next one.
    static Errc found_before(Errc error) {
        const bool is_before = error == Errc::no_node || error == Errc::no_auth ||
                               error == Errc::invalid_acl;
        return is_before ? error : Errc::ok;
    }
};

class Connection {
public:
    enum class State : std::uint8_t { greeting, opening, ready, closing, shut };
    static constexpr std::size_t in_flight_max = 256;
    static constexpr std::size_t output_high = 1024 * 1024;        // nothing is read beyond it
    static constexpr std::size_t output_max = 256 * 1024 * 1024;   // events alone: it is given up

    Connection(Ticket ticket, std::string host, int port, coord::Time now)
        : service_(*ticket.service), ticket_(ticket), host_(std::move(host)), port_(port),
          opened_at_(now), heard_at_(now) {}
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    void receive(BytesView bytes);     // any piece of what the client has sent
    void go_on();                      // takes what has waited, if there is room for it now
    bool wants_input() const { return is_listening() && in_.size() - in_at_ < frame_room(); }
    BytesView output() const { return BytesView(out_).substr(out_at_); }
    void sent(std::size_t bytes);      // so much of the output has gone
    // Nothing comes any more, or what comes is of no use: the socket is to be closed.
    bool is_over() const {
        return state_ == State::shut || (state_ == State::closing && output().empty());
    }
    void shut() { state_ = State::shut; }
    // What of the time since the last tick was the server's own pause is forgiven.
    void tick(coord::Time now, coord::Duration forgiven);

    State state() const { return state_; }
    Ticket ticket() const { return ticket_; }
    const std::string& host() const { return host_; }
    int port() const { return port_; }
    const std::optional<coord::Session>& session() const { return session_; }
    std::int32_t timeout_ms() const { return timeout_ms_; }
    coord::Time heard_at() const { return heard_at_; }
    bool is_closed_by_client() const { return is_ending_; }
    std::size_t in_flight() const { return in_flight_; }
    bool is_behind() const { return is_behind_; }
    std::string describe(bool in_full) const;
    Counters counters;

private:
    struct Armed;
    void on_event(const coord::WatchEvent& event, const Armed* watcher);
    struct Slot {
        std::int32_t xid = 0;
        std::int32_t type = 0;
        std::int32_t error = 0;      // of one that is done
        bool is_done = false;        // only its turn has to come
        bool is_last = false;        // the connection is closed behind it
        bool is_watch = false;       // it asks for a watch of that kind
        bool is_armed = false;       // and has one set
        WatchKind kind = WatchKind::data;
        std::uint32_t parts = 0;     // answers that it still waits for: setWatches
        std::int64_t zxid = -2;      // that its header shows; -2: as of the answer
        coord::Time at;
        Bytes text;                  // its path; of one that is done its body
        std::unique_ptr<Plan> plan;
    };
    struct Rewatch {
        WatchKind kind;
        coord::Watched watched;
        Bytes path;
    };

    bool is_listening() const { return state_ < State::closing && !is_ending_; }
    std::size_t frame_room() const;
    bool may_go_on() const;
    bool may_ask() const;
    bool take_frame(BytesView& frame);
    bool take_word();
    void on_frame(BytesView frame);
    void on_connect(BytesView frame);
    void on_opened(coord::Result<coord::Session> opened, bool is_new);
    void on_state(coord::SessionState state);
    void refuse_session();
    void on_request(std::int32_t xid, std::int32_t type, JuteReader& in);
    void on_fields(std::int32_t xid, const Ask& asked);

    Slot& add_slot(std::int32_t xid, std::int32_t type);
    Slot& add_request(std::int32_t xid, std::int32_t type);
    void answer_here(std::int32_t xid, std::int32_t type, Errc error, Bytes body = {},
                     std::int64_t zxid = -2);
    std::size_t begin_reply(const Slot& slot, std::int32_t error);
    void end_reply(std::size_t begun);
    void emit_done();
    bool take_answer(Errc& error);
    template <class Write>
    void answer(Errc error, Write&& write_body);
    void count(const Slot& slot);

    void ask_create(std::int32_t xid, const Ask& asked);
    void ask_write(std::int32_t xid, const Ask& asked);
    void ask_doomed(std::int32_t xid, const Ask& asked, Errc error);
    void ask_multi(std::int32_t xid, JuteReader& in);
    void ask_multi_read(std::int32_t xid, JuteReader& in);
    void on_multi(const coord::Multi& multi);
    void write_multi(const Plan& plan, const coord::Multi& multi);
    Errc judge_write(const Ask& asked) const;
    Errc judge_acl(const Ask& asked) const;
    void add_part(const Ask& asked, Errc doomed, Plan& plan, std::vector<coord::Op>& parts) const;
    static coord::CreateMode mode_of(const Ask& asked);
    static bool is_path_of(const Ask& asked);
    static Bytes beside(BytesView path);
    static std::int32_t part_type(std::int32_t type, std::int32_t flags);

    bool find_path(std::int32_t xid, const Ask& asked, BytesView& path);
    void ask_read(std::int32_t xid, const Ask& asked);
    bool arm(WatchKind kind, BytesView path);
    coord::Watcher watcher(WatchKind kind, BytesView path, bool is_first = true) const;
    void disarm(WatchKind kind, const Bytes& path);
    void settle_watch(const Slot& slot, Errc error);
    void set_watch_since(const Slot& slot, Errc error);
    void on_stat(coord::Result<coord::Stat> result);
    void on_data(coord::Result<coord::Data> result);
    void on_children(coord::Result<coord::Children> result);
    void ask_watch(std::int32_t xid, const Ask& asked);
    void check_watches(std::int32_t xid, const Ask& asked);
    void remove_watches(std::int32_t xid, const Ask& asked);
    void ask_set_watches(std::int32_t xid, std::int32_t type, JuteReader& in);
    void put_next_watch();
    void on_watch_put(Errc error);

    void ask_auth(std::int32_t xid, const Ask& asked);
    void ask_reconfig(std::int32_t xid, JuteReader& in);
    void ask_others(std::int32_t xid, const Ask& asked);
    void on_done(Errc error);
    void on_close();
    void touch();

    Service& service_;
    const Ticket ticket_;
    const std::string host_;
    const int port_;
    const coord::Time opened_at_;
    coord::Time heard_at_;
    State state_ = State::greeting;
    bool is_ending_ = false;          // the session is being closed by its client
    bool is_touched_ = false;         // in the service's list
    bool is_behind_ = false;          // globalOutstandingLimit left it one request at a time
    bool is_held_ = false;            // until one is answered: see settle_watch, remove_watches
    friend class Service;
    Bytes in_;
    std::size_t in_at_ = 0;           // what is before it has been taken
    Bytes out_;
    std::size_t out_at_ = 0;          // what is before it has gone
    ConnectRequest greeting_;
    std::optional<coord::Session> session_;
    std::int32_t timeout_ms_ = 0;
    std::deque<Slot> slots_;
    std::size_t in_flight_ = 0;       // what the replica has to answer
    std::vector<Rewatch> rewatches_;  // of a setWatches, the last one first
    coord::Zxid rewatch_since_;
    coord::Zxid told_;                // the latest that the client has been shown
    // The one-shot watches that are set or asked for, and those that stay: a bit for each kind. The
    // replica would set a second one beside the first, and ZooKeeper has one.
    std::unordered_map<Bytes, std::uint8_t> watched_;
    coord::WatchEvent last_event_;    // told once, however many watches it fires: here are
    std::vector<const void*> last_watchers_;  // those that it has fired so far
    std::int32_t last_type_ = 0;
    std::int32_t last_xid_ = 0;
    coord::Time last_answer_at_;
    std::int64_t last_latency_ms_ = 0;
};

// What connections share: the replica, the settings, the sessions that have no connection.
class Service {
public:
    Service(coord::Replica& replica_used, const Config& config_used, std::uint32_t id)
        : replica(replica_used), config(config_used), my_id(id) {}
    Service(const Service&) = delete;
    Service& operator=(const Service&) = delete;

    Connection& open(const std::string& host, int port);
    void close(Connection& connection);
    Connection* find(std::uint32_t index, std::uint32_t generation) const {
        const bool is_there = index < places_.size() && places_[index].generation == generation;
        return is_there ? places_[index].connection.get() : nullptr;
    }
    std::size_t connections() const { return places_.size() - free_.size(); }
    std::size_t connections_from(const std::string& host) const {
        const auto found = hosts_.find(host);
        return found == hosts_.end() ? 0 : found->second;
    }
    template <class Visit>
    void visit(Visit&& visit_connection) const {
        for (const Place& place : places_) {
            if (place.connection) visit_connection(*place.connection);
        }
    }
    // Those that have something to be sent, or to be looked at. Each once.
    // Those first that globalOutstandingLimit kept from asking the time before: else whoever is
    // first asks for all that it lets through, again and again.
    std::vector<Ticket> take_touched();
    void touch(Connection& connection) {
        if (std::exchange(connection.is_touched_, true)) return;
        touched_.push_back(connection.ticket());
    }
    bool has_touched() const { return !touched_.empty(); }
    void untouch(Connection& connection) { connection.is_touched_ = false; }

    // What has been silent for too long ends. To be called several times in a tick; where it is not
    // for longer than that the server has paused.
    static constexpr int pause_ms_max = 1500;
    void tick(coord::Time now);
    // The session of a client that is gone lives on for its timeout, and may be attached.
    void leave(const coord::Session& session, std::int32_t timeout_ms, coord::Time heard_at);
    bool is_serving() const { return replica.status().serving; }
    bool is_standalone() const { return config.is_standalone(); }
    coord::SessionPassword new_password() const {
        return random ? coord::SessionPassword{random(), random()} : coord::SessionPassword{};
    }
    // What /zookeeper/config reads as; the Stat and the text of a read of it, as they are shown.
    Bytes config_text() const;
    void show_config(coord::Stat& stat, Bytes* text = nullptr) const;
    bool is_config(BytesView path) const { return path == "/zookeeper/config"; }

    coord::Replica& replica;
    const Config& config;
    const std::uint32_t my_id;
    coord::Callback<std::uint64_t()> random;        // for passwords
    coord::Callback<void(const std::string&)> log;  // for what an operator may want to know
    bool accepts_super_for_all = false;             // skipACL
    Bytes super_for_all;                            // the credential for that
    Counters counters;
    std::uint64_t sessions_expired = 0;
    std::uint64_t refused_connections = 0;
    std::size_t outstanding = 0;
    bool has_behind = false;  // some connection is_behind
    coord::Time now;
    coord::Time started_at;
    std::int64_t wall_ms = 0;

private:
    struct Place {
        std::unique_ptr<Connection> connection;
        std::uint32_t generation = 0;
    };
    struct Left {
        coord::Session session;
        coord::Time until;
    };
    void judge_serving();

    std::vector<Place> places_;
    std::vector<std::uint32_t> free_;
    std::vector<Ticket> touched_;
    std::unordered_map<std::string, std::size_t> hosts_;
    std::vector<Left> left_;
    coord::Time served_at_;
    bool served_ = false;
    coord::Time ticked_at_;
};

// RETURNS the answer to a four-letter word, or "" where it is none: see words.hpp.
std::string answer_word(Service& service, const std::string& word);
bool is_word(BytesView bytes);

inline Connection* Ticket::find() const { return service->find(index, generation); }

// ZooKeeper's code for what a request has ended with. coord has some of its own: what is over a
// bound has not been done, which is what ZooKeeper says of a request that it throttles.
inline std::int32_t wire_error(Errc error) {
    switch (error) {
        case Errc::too_large: return static_cast<std::int32_t>(Errc::bad_arguments);
        case Errc::too_many:
        case Errc::storage_full: return static_cast<std::int32_t>(Errc::throttled_op);
        default: return static_cast<std::int32_t>(error);
    }
}

// Whether the client cannot be told, since nobody knows or it is somebody else's by now: then its
// connection is cut, and it asks again, here or elsewhere.
inline bool is_cut(Errc error) {
    return error == Errc::session_moved || error == Errc::outcome_unknown ||
           error == Errc::replica_failed || error == Errc::storage_failed ||
           error == Errc::cancelled;
}

// -------------------------------------------------------------------------------------------------
// Bytes and frames

inline void Connection::touch() { service_.touch(*this); }

inline std::size_t Connection::frame_room() const {
    return static_cast<std::size_t>(service_.config.frame_bytes_max) + 4;
}

inline void Connection::receive(BytesView bytes) {
    heard_at_ = service_.now;
    if (!is_listening()) return;
    in_.append(bytes);
    go_on();
}

inline void Connection::go_on() {
    BytesView frame;
    while (may_go_on()) {
        if (!rewatches_.empty()) {
            put_next_watch();
        } else if (take_frame(frame)) {
            on_frame(frame);
        } else {
            break;
        }
    }
    is_behind_ = in_at_ < in_.size() && in_flight_ == 1 && !may_ask();
    if (is_behind_) service_.has_behind = true;
    if (in_at_ == in_.size()) {
        if (in_.capacity() > 64 * 1024) Bytes().swap(in_);  // one that was large: given back
        in_.clear(), in_at_ = 0;
    } else if (in_at_ > 64 * 1024) {
        in_.erase(0, in_at_), in_at_ = 0;
    }
}

inline bool Connection::may_go_on() const {
    if (state_ == State::greeting) return true;
    const bool has_room = in_flight_ < in_flight_max && output().size() < output_high;
    return state_ == State::ready && !is_ending_ && !is_held_ && has_room && may_ask();
}

inline bool Connection::may_ask() const {
    const auto limit = static_cast<std::size_t>(service_.config.outstanding_limit);
    return service_.outstanding < limit || in_flight_ == 0;
}

inline bool Connection::take_frame(BytesView& frame) {
    const BytesView rest = BytesView(in_).substr(in_at_);
    if (rest.size() < 4) return false;
    if (state_ == State::greeting && take_word()) return false;
    const std::int32_t size = coord::Reader(rest).i32();
    if (size < 0 || size > service_.config.frame_bytes_max) return shut(), touch(), false;
    const auto length = static_cast<std::size_t>(size);
    if (rest.size() < 4 + length) return false;
    frame = rest.substr(4, length);
    in_at_ += 4 + length;
    return true;
}

inline bool Connection::take_word() {
    const BytesView word = BytesView(in_).substr(in_at_, 4);
    if (!is_word(word)) return false;
    out_ += answer_word(service_, Bytes(word));
    state_ = State::closing;
    touch();
    return true;
}

inline void Connection::sent(std::size_t bytes) {
    out_at_ += bytes;
    if (out_at_ == out_.size()) {
        if (out_.capacity() > 64 * 1024) Bytes().swap(out_);
        out_.clear(), out_at_ = 0;
    } else if (out_at_ > output_high) {
        out_.erase(0, out_at_), out_at_ = 0;
    }
}

inline void Connection::on_frame(BytesView frame) {
    counters.received += 1, service_.counters.received += 1;
    if (state_ == State::greeting) return on_connect(frame);
    JuteReader in(frame);
    const std::int32_t xid = in.i32();
    const std::int32_t type = in.i32();
    if (!in.ok()) return shut(), touch();
    last_type_ = type;
    if (xid > 0) last_xid_ = xid;
    on_request(xid, type, in);
    emit_done();
}

// -------------------------------------------------------------------------------------------------
// The session

inline void Connection::on_connect(BytesView frame) {
    const bool is_sound = greeting_.read(frame);
    const auto applied = static_cast<std::int64_t>(service_.replica.machine().applied().value);
    if (!is_sound || !service_.is_serving() || greeting_.last_zxid > applied) {
        return shut(), touch();
    }
    state_ = State::opening;
    const bool is_new = greeting_.session == 0;
    // It may be called when the connection has gone: then nobody will ever ask for a new session,
    // and one that was there before lives on for a while.
    const auto done = [ticket = ticket_, is_new](coord::Result<coord::Session> opened) {
        Connection* const connection = ticket.find();
        if (connection != nullptr) return connection->on_opened(std::move(opened), is_new);
        if (!opened) return;
        if (is_new) return opened->close();
        Service& service = *ticket.service;
        const coord::Duration timeout = opened->timeout();
        service.leave(*opened, static_cast<std::int32_t>(timeout.ns / 1000000), service.now);
    };
    if (is_new) {
        coord::SessionOptions options;
        options.timeout = coord::milliseconds((std::max)(greeting_.timeout_ms, 0));
        options.password = service_.new_password();
        coord::Session::open(service_.replica, options, done);
    } else if (greeting_.password.size() != password_bytes) {
        refuse_session();
    } else {
        coord::Reader password(greeting_.password);
        const std::uint64_t high = password.u64();
        coord::Session::attach(service_.replica, coord::SessionId{greeting_.session},
                               {high, password.u64()}, done);
    }
}

inline void Connection::refuse_session() {
    ConnectResponse response;
    response.has_read_only = greeting_.has_read_only;
    response.write(out_);
    state_ = State::closing;
    touch();
}

inline void Connection::on_opened(coord::Result<coord::Session> opened, bool is_new) {
    touch();
    if (state_ != State::opening) {  // its client has gone meanwhile
        if (opened && is_new) opened->close();
        return;
    }
    if (!opened) {
        const bool is_gone = opened.error() == Errc::session_expired ||
                             opened.error() == Errc::auth_failed;
        if (!is_new && is_gone) return refuse_session();
        service_.refused_connections += 1;
        return shut();
    }
    session_ = *opened;
    session_->on_state([ticket = ticket_](coord::SessionState state) {
        Connection* const connection = ticket.find();
        if (connection != nullptr) connection->on_state(state);
    });
    timeout_ms_ = static_cast<std::int32_t>(session_->timeout().ns / 1000000);
    if (service_.accepts_super_for_all) {
        session_->add_auth("digest", service_.super_for_all, {});
    }
    session_->add_auth("ip", host_, {});  // what an ACL may ask for
    ConnectResponse response;
    response.timeout_ms = timeout_ms_;
    response.session = session_->id().value;
    response.password = session_->password();
    response.has_read_only = greeting_.has_read_only;
    response.write(out_);
    counters.sent += 1, service_.counters.sent += 1;
    state_ = State::ready;
    go_on();
}

// It has expired, or is attached elsewhere: what is asked for here cannot be answered any more.
inline void Connection::on_state(coord::SessionState state) {
    const bool is_gone = state == coord::SessionState::expired ||
                         state == coord::SessionState::moved;
    if (!is_gone || state_ >= State::closing) return;
    state_ = State::closing;
    touch();
}

inline void Connection::tick(coord::Time now, coord::Duration forgiven) {
    heard_at_ = heard_at_ + forgiven;
    const bool is_unread = state_ == State::ready && in_flight_ > 0 && !wants_input();
    if (is_unread) heard_at_ = now;  // it is not silent: nobody listens
    const coord::Duration silence = now - heard_at_;
    const bool is_stuck = state_ == State::closing && silence > coord::seconds(10);
    if (is_stuck || (state_ == State::greeting && now - opened_at_ > coord::seconds(10))) {
        shut(), touch();
    } else if (state_ == State::ready && silence > coord::milliseconds(timeout_ms_)) {
        service_.sessions_expired += 1;
        if (service_.log) {
            char id[32];
            std::snprintf(id, sizeof id, "0x%llx",
                          static_cast<unsigned long long>(session_->id().value));
            service_.log("session " + std::string(id) + " has been silent for " +
                         std::to_string(timeout_ms_) + " ms: it ends");
        }
        session_->close();
        is_ending_ = true;
        shut(), touch();
    }
}

// -------------------------------------------------------------------------------------------------
// Slots and replies

inline Connection::Slot& Connection::add_slot(std::int32_t xid, std::int32_t type) {
    slots_.emplace_back();
    Slot& slot = slots_.back();
    slot.xid = xid, slot.type = type, slot.at = service_.now;
    return slot;
}

// One that the replica answers.
inline Connection::Slot& Connection::add_request(std::int32_t xid, std::int32_t type) {
    in_flight_ += 1, service_.outstanding += 1;
    return add_slot(xid, type);
}

inline void Connection::answer_here(std::int32_t xid, std::int32_t type, Errc error, Bytes body,
                                    std::int64_t zxid) {
    // Between polls everything up to what is applied has been told.
    if (slots_.empty() && !service_.replica.is_polling()) {
        told_ = (std::max)(told_, service_.replica.machine().applied());
    }
    Slot& slot = add_slot(xid, type);
    slot.error = wire_error(error), slot.is_done = true;
    slot.text = std::move(body), slot.zxid = zxid;
}

inline std::size_t Connection::begin_reply(const Slot& slot, std::int32_t error) {
    JuteWriter writer(out_);
    const std::size_t begun = writer.begin();
    writer.i32(slot.xid);
    writer.i64(slot.zxid == -2 ? static_cast<std::int64_t>(told_.value) : slot.zxid);
    writer.i32(error);
    return begun;
}

inline void Connection::end_reply(std::size_t begun) {
    JuteWriter(out_).end(begun);
    counters.sent += 1, service_.counters.sent += 1;
    if (output().size() > output_max) shut();
    touch();
}

inline void Connection::count(const Slot& slot) {
    const coord::Duration time = (std::max)(service_.now - slot.at, coord::Duration{});
    counters.answered(time), service_.counters.answered(time);
    last_answer_at_ = service_.now;
    last_latency_ms_ = time.ns / 1000000;
}

inline void Connection::emit_done() {
    while (!slots_.empty() && slots_.front().is_done && state_ < State::closing) {
        const Slot& slot = slots_.front();
        const std::size_t begun = begin_reply(slot, slot.error);
        out_ += slot.text;
        end_reply(begun);
        count(slot);
        if (slot.is_last) state_ = State::closing;
        slots_.pop_front();
    }
}

// RETURNS whether the slot in front is to be answered with that error, or without one.
inline bool Connection::take_answer(Errc& error) {
    in_flight_ -= 1, service_.outstanding -= 1;
    touch();
    if (state_ >= State::closing || slots_.empty()) return false;
    if (is_cut(error)) return shut(), false;
    told_ = (std::max)(told_, service_.replica.answer_zxid());
    return true;
}

template <class Write>
void Connection::answer(Errc error, Write&& write_body) {
    if (!take_answer(error)) return;
    const Slot slot = std::move(slots_.front());
    slots_.pop_front();
    const std::size_t begun = begin_reply(slot, wire_error(error));
    if (error == Errc::ok) {
        JuteWriter writer(out_);
        write_body(slot, writer);
    }
    end_reply(begun);
    count(slot);
    if (slot.is_watch) settle_watch(slot, error);
    emit_done();
}

inline void Connection::on_done(Errc error) {
    answer(error, [](const Slot& slot, JuteWriter& writer) {
        if (slot.type == op::sync) writer.bytes(slot.text);
    });
}

// -------------------------------------------------------------------------------------------------
// Requests

inline void Connection::on_request(std::int32_t xid, std::int32_t type, JuteReader& in) {
    switch (type) {
        case op::multi: return ask_multi(xid, in);
        case op::multi_read: return ask_multi_read(xid, in);
        case op::set_watches:
        case op::set_watches2: return ask_set_watches(xid, type, in);
        case op::sasl: return shut(), touch();
        case op::reconfig: return ask_reconfig(xid, in);
        default: break;
    }
    const char* const layout = Ask::layout(type);
    if (layout == nullptr || type == op::check_version) {
        return answer_here(xid, type, Errc::unimplemented, {}, -1);
    }
    Ask asked;
    asked.type = type;
    if (!asked.read(in, layout)) return answer_here(xid, type, Errc::marshalling_error);
    on_fields(xid, asked);
}

inline void Connection::on_fields(std::int32_t xid, const Ask& asked) {
    switch (asked.type) {
        case op::create:
        case op::create2:
        case op::create_container:
        case op::create_ttl:
        case op::remove:
        case op::set_data:
        case op::set_acl: return ask_write(xid, asked);
        case op::exists:
        case op::get_data:
        case op::get_children:
        case op::get_children2:
        case op::get_acl:
        case op::get_all_children_number: return ask_read(xid, asked);
        case op::check_watches: return check_watches(xid, asked);
        case op::remove_watches: return remove_watches(xid, asked);
        case op::add_watch: return ask_watch(xid, asked);
        case op::auth: return ask_auth(xid, asked);
        case op::ping: return answer_here(xid, asked.type, Errc::ok);
        default: return ask_others(xid, asked);
    }
}

inline void Connection::ask_auth(std::int32_t xid, const Ask& asked) {
    Bytes credential(asked.data);
    if (asked.path == "ip") credential = host_;
    if (asked.path != "digest" && asked.path != "ip") {
        answer_here(xid, asked.type, Errc::auth_failed, {}, 0);
        slots_.back().is_last = true;
        return;
    }
    Slot& slot = add_request(xid, asked.type);
    slot.zxid = 0;
    session_->add_auth(asked.path, credential, [ticket = ticket_](coord::Result<void> result) {
        Connection* const connection = ticket.find();
        if (connection == nullptr) return;
        const bool is_good = bool(result) || is_cut(result.error());
        const bool is_over = result.error() == Errc::session_expired;
        connection->on_done(is_good || is_over ? result.error() : Errc::auth_failed);
        if (!is_good && connection->state_ < State::closing) connection->state_ = State::closing;
    });
}

// The answer comes when the next members are the members: what is asked for behind it waits.
inline void Connection::ask_reconfig(std::int32_t xid, JuteReader& in) {
    AskedReconfig asked;
    asked.joining = in.bytes(), asked.leaving = in.bytes(), asked.members = in.bytes();
    asked.version = in.i64();
    asked.voters_min = service_.config.may_be_standalone ? 2 : 1;
    const std::int32_t type = op::reconfig;
    if (!in.ok()) return answer_here(xid, type, Errc::marshalling_error);
    if (!service_.config.reconfig) return answer_here(xid, type, Errc::reconfig_disabled);
    if (service_.is_standalone()) return answer_here(xid, type, Errc::unimplemented);
    coord::Reconfig change;
    const Errc error = asked.read(service_.replica.members(), change);
    if (error != Errc::ok) return answer_here(xid, type, error);
    add_request(xid, type);
    session_->reconfig(change, [ticket = ticket_](coord::Result<coord::Data> result) {
        Connection* const to = ticket.find();
        if (to == nullptr) return;
        to->answer(result.error(), [&](const Slot&, JuteWriter& writer) {
            writer.bytes(result->bytes), writer.stat(result->stat);
        });
    });
}

inline void Connection::ask_others(std::int32_t xid, const Ask& asked) {
    const Ticket ticket = ticket_;
    Slot& slot = add_request(xid, asked.type);
    if (asked.type == op::sync) {
        slot.text.assign(asked.path);
        session_->sync([ticket](coord::Result<void> result) {
            if (Connection* to = ticket.find()) to->on_done(result.error());
        });
    } else if (asked.type == op::close_session) {
        is_ending_ = true;
        session_->close([ticket](coord::Result<void>) {
            if (Connection* to = ticket.find()) to->on_close();
        });
    } else if (asked.type == op::who_am_i) {
        session_->whoami([ticket](coord::Result<coord::NodeAcl> result) {
            Connection* const to = ticket.find();
            if (to == nullptr) return;
            to->answer(result.error(), [&](const Slot&, JuteWriter& writer) {
                const std::size_t size = result->acl.size();
                writer.count(size);
                for (std::size_t i = 0; i < size; i++) {
                    writer.bytes(result->acl[i].scheme), writer.bytes(result->acl[i].id);
                }
            });
        });
    } else {  // get_ephemerals
        const bool is_any = asked.path.find_first_not_of(" \t\r\n") == BytesView::npos;
        const BytesView prefix = is_any ? BytesView("/") : asked.path;
        session_->read(coord::Query::ephemerals(prefix), [ticket](coord::Result<coord::Found> f) {
            Connection* const to = ticket.find();
            if (to == nullptr) return;
            const Errc error = f ? f->error : f.error();
            const bool is_none = error == Errc::bad_arguments;  // what no path begins with
            to->answer(is_none ? Errc::ok : error, [&](const Slot&, JuteWriter& writer) {
                writer.names(f ? f->names : std::vector<Bytes>());
            });
        });
    }
}

inline void Connection::on_close() {
    on_done(Errc::ok);
    if (state_ < State::closing) state_ = State::closing;
}

// -------------------------------------------------------------------------------------------------
// Writes

inline coord::CreateMode Connection::mode_of(const Ask& asked) {
    return static_cast<coord::CreateMode>(asked.flags);
}

// Whether a node can be created there: of a sequential mode with a number behind it.
inline bool Connection::is_path_of(const Ask& asked) {
    if (!coord::is_sequential(mode_of(asked))) return coord::is_valid_path(asked.path);
    return coord::is_valid_path(Bytes(asked.path) + "0000000000");
}

inline Errc Connection::judge_acl(const Ask& asked) const {
    if (!asked.is_acl_sound || asked.acl.empty()) return Errc::invalid_acl;
    for (std::size_t i = 0; i < asked.acl.size(); i++) {
        const BytesView scheme = asked.acl[i].scheme;
        const bool is_known = scheme == "world" || scheme == "digest" || scheme == "ip" ||
                              scheme == "auth";
        if (!is_known) return Errc::invalid_acl;
    }
    Bytes body;
    coord::Writer writer(body);
    writer.bytes("/"), writer.bytes(asked.acl.bytes()), writer.i32(coord::any_version);
    return coord::judge_request(coord::OpCode::set_acl, body, {});
}

// What ZooKeeper refuses before it looks at the tree, in its order; marshalling_error of the whole
// request.
inline Errc Connection::judge_write(const Ask& asked) const {
    const bool is_null = coord::is_null(asked.path);  // to what asks for a path that is one: none
    const bool has_nul = asked.path.find('\0') != BytesView::npos;
    const bool is_named = asked.path.find('/') != BytesView::npos && !has_nul;
    if (asked.type == op::remove) {
        if (is_null) return Errc::marshalling_error;
        const bool is_fixed = asked.path == "/" || asked.path == "/zookeeper" ||
                              asked.path == "/zookeeper/quota" || service_.is_config(asked.path);
        if (!is_named || is_fixed) return Errc::bad_arguments;
        return coord::is_valid_path(asked.path) ? Errc::ok : Errc::no_node;
    }
    if (asked.type == op::set_data || asked.type == op::check_version) {
        return coord::is_valid_path(asked.path) ? Errc::ok : Errc::bad_arguments;
    }
    if (asked.type == op::set_acl) {
        return coord::is_valid_path(asked.path) ? judge_acl(asked) : Errc::bad_arguments;
    }
    if (asked.flags < 0 || asked.flags > 6) return Errc::bad_arguments;
    const bool is_ttl = coord::has_ttl(mode_of(asked));
    if (is_ttl && !service_.config.extended_types) return Errc::unimplemented;
    const bool is_ttl_sound = asked.ttl_ms > 0 && asked.ttl_ms <= coord::ttl_ms_max;
    if (is_ttl != (asked.type == op::create_ttl) || (is_ttl && !is_ttl_sound)) {
        return Errc::bad_arguments;
    }
    if (is_null) return Errc::marshalling_error;
    return is_named ? judge_acl(asked) : Errc::bad_arguments;
}

// The parent of a path that is none, and below it what is not there; or what cannot be there at
// all.
inline Bytes Connection::beside(BytesView path) {
    const std::size_t slash = (std::max)(path.rfind('/'), std::size_t{1});
    const BytesView parent = path.substr(0, slash);
    if (!coord::is_valid_path(parent)) return "/zookeeper/config/none/none";
    return Bytes(parent) + (parent.size() > 1 ? "/none" : "none");
}

// One part, or two: see Plan. What is doomed is put as a check that cannot be passed. A create
// whose path is none is refused for its parent and its ACL before that: so one that has a path is
// tried in front, which the check undoes. A remove of such a path is one of what is not there.
inline void Connection::add_part(const Ask& asked, Errc doomed, Plan& plan,
                                 std::vector<coord::Op>& parts) const {
    const bool is_create = asked.type != op::remove && asked.type != op::set_data &&
                           asked.type != op::set_acl && asked.type != op::check_version;
    if (doomed == Errc::ok && is_create && !is_path_of(asked)) {
        plan.paths.push_back(beside(asked.path));
        const bool has_parent = plan.paths.back() != "/zookeeper/config/none/none";
        doomed = has_parent ? Errc::bad_arguments : Errc::no_node;
        plan.parts.push_back({op::create, Errc::ok, true});
        parts.push_back(coord::Op::create(plan.paths.back(), "",
                                          coord::CreateMode::persistent_sequential, {},
                                          asked.acl));
    }
    plan.parts.push_back({asked.type, doomed});
    const bool is_ttl = asked.type == op::create_ttl;
    if (doomed == Errc::no_node && asked.type == op::remove) {
        plan.paths.push_back(beside(asked.path));
        parts.push_back(coord::Op::remove(plan.paths.back(), INT32_MAX));
    } else if (doomed != Errc::ok) {
        parts.push_back((coord::Op::check)("/", INT32_MAX));
    } else if (asked.type == op::remove) {
        parts.push_back(coord::Op::remove(asked.path, asked.version));
    } else if (asked.type == op::set_data) {
        parts.push_back(coord::Op::set(asked.path, asked.data, asked.version));
    } else if (asked.type == op::check_version) {
        parts.push_back((coord::Op::check)(asked.path, asked.version));
    } else {
        const coord::Duration ttl = coord::milliseconds(is_ttl ? asked.ttl_ms : 0);
        parts.push_back(coord::Op::create(asked.path, asked.data, mode_of(asked), ttl, asked.acl));
    }
}

inline void Connection::ask_doomed(std::int32_t xid, const Ask& asked, Errc error) {
    auto plan = std::make_unique<Plan>();
    std::vector<coord::Op> parts;
    plan->is_multi = false;
    add_part(asked, error, *plan, parts);
    add_request(xid, asked.type).plan = std::move(plan);
    session_->multi(std::move(parts), [ticket = ticket_](const coord::Multi& multi) {
        if (Connection* to = ticket.find()) to->on_multi(multi);
    });
}

inline void Connection::ask_write(std::int32_t xid, const Ask& asked) {
    const Errc error = judge_write(asked);
    if (error == Errc::marshalling_error) return answer_here(xid, asked.type, error);
    if (error != Errc::ok) return ask_doomed(xid, asked, error);
    const auto on_stat = [ticket = ticket_](coord::Result<coord::Stat> result) {
        Connection* const to = ticket.find();
        if (to == nullptr) return;
        to->answer(result.error(), [&](const Slot&, JuteWriter& out) { out.stat(*result); });
    };
    if (asked.type == op::remove) {
        add_request(xid, asked.type);
        session_->remove(asked.path, asked.version, [ticket = ticket_](coord::Result<void> done) {
            if (Connection* to = ticket.find()) to->on_done(done.error());
        });
    } else if (asked.type == op::set_data) {
        add_request(xid, asked.type);
        session_->set(asked.path, asked.data, asked.version, on_stat);
    } else if (asked.type == op::set_acl) {
        add_request(xid, asked.type);
        session_->set_acl(asked.path, asked.acl, asked.version, on_stat);
    } else {
        ask_create(xid, asked);
    }
}

inline void Connection::ask_create(std::int32_t xid, const Ask& asked) {
    if (!is_path_of(asked)) return ask_doomed(xid, asked, Errc::ok);
    add_request(xid, asked.type);
    session_->create(asked.path, asked.data, mode_of(asked), coord::milliseconds(asked.ttl_ms),
                     asked.acl, [ticket = ticket_](coord::Result<coord::Created> result) {
                         Connection* const to = ticket.find();
                         if (to == nullptr) return;
                         to->answer(result.error(), [&](const Slot& slot, JuteWriter& writer) {
                             writer.bytes(result->path);
                             if (slot.type != op::create) writer.stat(result->stat);
                         });
                     });
}

// Of the creates of a multi the mode decides which one it is, whatever it is called.
inline std::int32_t Connection::part_type(std::int32_t type, std::int32_t flags) {
    const bool is_create = type == op::create || type == op::create2 ||
                           type == op::create_container || type == op::create_ttl;
    if (!is_create) return type;
    if (flags == static_cast<std::int32_t>(coord::CreateMode::container)) {
        return op::create_container;
    }
    return flags == 5 || flags == 6 ? op::create_ttl : op::create;
}

inline void Connection::ask_multi(std::int32_t xid, JuteReader& in) {
    auto plan = std::make_unique<Plan>();
    std::vector<coord::Op> parts;
    std::deque<Ask> asks;  // parts look into their ACLs
    bool is_sound = true;
    bool is_null = false;  // a path is
    for (MultiHeader header;;) {
        header.read(in);
        if (!in.ok() || header.done) break;
        const bool is_part = header.type == op::create || header.type == op::create2 ||
                             header.type == op::create_container ||
                             header.type == op::create_ttl || header.type == op::remove ||
                             header.type == op::set_data || header.type == op::check_version;
        asks.emplace_back();
        Ask& asked = asks.back();
        is_sound = is_part && asked.read(in, Ask::layout(header.type));
        if (!is_sound) break;
        asked.type = part_type(header.type, asked.flags);
        const Errc error = judge_write(asked);
        is_null = is_null || coord::is_null(asked.path);
        add_part(asked, error, *plan, parts);
    }
    if (!is_sound || is_null || !in.ok()) {
        Bytes end;
        JuteWriter out(end);
        // As ZooKeeper does, for whoever looks at it.
        if (is_sound && in.ok()) MultiHeader{-1, true, -1}.write(out);
        return answer_here(xid, op::multi, Errc::marshalling_error, std::move(end));
    }
    add_request(xid, op::multi).plan = std::move(plan);
    session_->multi(std::move(parts), [ticket = ticket_](const coord::Multi& multi) {
        if (Connection* to = ticket.find()) to->on_multi(multi);
    });
}

inline void Connection::on_multi(const coord::Multi& multi) {
    Errc error = multi.error;
    if (!is_cut(error) && error != Errc::session_expired && !slots_.empty()) {
        const Plan* const plan = slots_.front().plan.get();
        const bool is_judged = plan != nullptr && plan->parts.size() == multi.parts.size();
        if (is_judged && plan->is_multi) error = Errc::ok;  // what failed is in its parts
        if (is_judged && !plan->is_multi) {
            const Plan::Part& last = plan->parts.back();
            const bool is_before = plan->parts.front().is_hidden &&
                                   Plan::found_before(error) != Errc::ok;
            if (!is_before) error = Plan::end_of(last, error);
        }
    }
    answer(error, [&](const Slot& slot, JuteWriter&) { write_multi(*slot.plan, multi); });
}

inline void Connection::write_multi(const Plan& plan, const coord::Multi& multi) {
    JuteWriter out(out_);
    Errc hidden = Errc::ok;  // what the part before has failed with, in place of this one
    for (std::size_t i = 0; i < plan.parts.size(); i++) {
        const Plan::Part& planned = plan.parts[i];
        const coord::Part& part = multi.parts[i];
        const bool has_failed = part.error != Errc::ok &&
                                part.error != Errc::runtime_inconsistency;
        if (planned.is_hidden) {
            hidden = has_failed ? Plan::found_before(part.error) : Errc::ok;
            if (has_failed && hidden == Errc::ok) hidden = Errc::bad_arguments;
            continue;
        }
        Errc error = has_failed ? Plan::end_of(planned, part.error) : part.error;
        if (hidden != Errc::ok) error = std::exchange(hidden, Errc::ok);
        if (multi.error != Errc::ok) {
            const std::int32_t code = wire_error(error);
            MultiHeader{op::error, false, code}.write(out);
            out.i32(code);
            continue;
        }
        const bool is_plain = planned.type == op::create || planned.type == op::remove ||
                              planned.type == op::set_data || planned.type == op::check_version;
        MultiHeader{is_plain ? planned.type : op::create2, false, 0}.write(out);
        const bool is_create = !is_plain || planned.type == op::create;
        if (is_create) out.bytes(part.path);
        if (!is_plain || planned.type == op::set_data) out.stat(part.stat);
    }
    MultiHeader{-1, true, -1}.write(out);
}

// -------------------------------------------------------------------------------------------------
// Reads

// RETURNS false, having answered, where no node can have that path. The empty path is the root.
inline bool Connection::find_path(std::int32_t xid, const Ask& asked, BytesView& path) {
    path = asked.path;
    if (coord::is_null(path)) {
        answer_here(xid, asked.type, Errc::marshalling_error);
        return false;
    }
    if (path.empty()) path = "/";
    if (coord::is_valid_path(path)) return true;
    const bool has_nul = path.find('\0') != BytesView::npos;
    const bool is_refused = has_nul && asked.type == op::exists;
    answer_here(xid, asked.type, is_refused ? Errc::bad_arguments : Errc::no_node);
    return false;
}

// What a watcher holds. It goes when the replica forgets the watcher, for whatever reason: also
// where the client may not read the node, and hears of nothing.
struct Connection::Armed {
    Armed(Ticket whose, WatchKind of_kind, BytesView at, bool is_the_first)
        : ticket(whose), kind(of_kind), path(at), is_first(is_the_first) {}
    Armed(const Armed&) = delete;
    Armed& operator=(const Armed&) = delete;
    ~Armed() {
        Connection* const connection = ticket.find();
        if (connection != nullptr && is_first) connection->disarm(kind, path);
    }
    const Ticket ticket;
    const WatchKind kind;
    const Bytes path;
    const bool is_first;  // and not one beside one that is there
};

inline coord::Watcher Connection::watcher(WatchKind kind, BytesView path, bool is_first) const {
    const auto armed = std::make_shared<const Armed>(ticket_, kind, path, is_first);
    return [armed](const coord::WatchEvent& event) {
        Connection* const connection = armed->ticket.find();
        if (connection != nullptr) connection->on_event(event, armed.get());
    };
}

inline void Connection::disarm(WatchKind kind, const Bytes& path) {
    const auto found = watched_.find(path);
    if (found == watched_.end()) return;
    const unsigned bit = 1u << static_cast<unsigned>(kind);
    found->second = static_cast<std::uint8_t>(found->second & ~bit);
    if (found->second == 0) watched_.erase(found);
}

// RETURNS whether the watch has to be set: there is none yet.
inline bool Connection::arm(WatchKind kind, BytesView path) {
    std::uint8_t& bits = watched_[Bytes(path)];
    const auto bit = static_cast<std::uint8_t>(1u << static_cast<unsigned>(kind));
    if ((bits & bit) != 0) return false;
    bits = static_cast<std::uint8_t>(bits | bit);
    return true;
}

inline void Connection::ask_read(std::int32_t xid, const Ask& asked) {
    BytesView path;
    if (!find_path(xid, asked, path)) return;
    const Ticket ticket = ticket_;
    Slot& slot = add_request(xid, asked.type);
    slot.text.assign(path);
    const bool is_list = asked.type == op::get_children || asked.type == op::get_children2;
    slot.kind = is_list ? WatchKind::children : WatchKind::data;
    slot.is_watch = asked.watch && !asked.path.empty();  // in ZooKeeper that one never fires
    slot.is_armed = slot.is_watch && arm(slot.kind, path);
    is_held_ = slot.is_watch && !slot.is_armed;
    const coord::Watcher hears = slot.is_armed ? watcher(slot.kind, path) : coord::Watcher();
    if (asked.type == op::exists) {
        session_->exists(path, hears, [ticket](coord::Result<coord::Stat> result) {
            if (Connection* to = ticket.find()) to->on_stat(std::move(result));
        });
    } else if (asked.type == op::get_data) {
        session_->get(path, hears, [ticket](coord::Result<coord::Data> result) {
            if (Connection* to = ticket.find()) to->on_data(std::move(result));
        });
    } else if (is_list) {
        session_->children(path, hears, [ticket](coord::Result<coord::Children> result) {
            if (Connection* to = ticket.find()) to->on_children(std::move(result));
        });
    } else if (asked.type == op::get_acl) {
        session_->get_acl(path, [ticket](coord::Result<coord::NodeAcl> result) {
            Connection* const to = ticket.find();
            if (to == nullptr) return;
            to->answer(result.error(), [&](const Slot& answered, JuteWriter& writer) {
                if (to->service_.is_config(answered.text)) {
                    to->service_.show_config(result->stat);
                }
                writer.acl(result->acl), writer.stat(result->stat);
            });
        });
    } else {
        session_->read(coord::Query::descendants(path), [ticket](coord::Result<coord::Found> f) {
            Connection* const to = ticket.find();
            if (to == nullptr) return;
            to->answer(f ? f->error : f.error(), [&](const Slot&, JuteWriter& writer) {
                writer.i32(static_cast<std::int32_t>(f->count));
            });
        });
    }
}

inline void Connection::on_stat(coord::Result<coord::Stat> result) {
    answer(result.error(), [&](const Slot& slot, JuteWriter& writer) {
        if (service_.is_config(slot.text)) service_.show_config(*result);
        writer.stat(*result);
    });
}

inline void Connection::on_data(coord::Result<coord::Data> result) {
    answer(result.error(), [&](const Slot& slot, JuteWriter& writer) {
        if (service_.is_config(slot.text)) service_.show_config(result->stat, &result->bytes);
        writer.bytes(result->is_null ? coord::null_data : BytesView(result->bytes));
        writer.stat(result->stat);
    });
}

inline void Connection::on_children(coord::Result<coord::Children> result) {
    Errc error = result.error();
    if (result && result->more) error = Errc::marshalling_error;  // more than an answer holds
    answer(error, [&](const Slot& slot, JuteWriter& writer) {
        writer.names(result->names);
        if (slot.type != op::get_children2) return;
        if (service_.is_config(slot.text)) service_.show_config(result->stat);
        writer.stat(result->stat);
    });
}

inline void Connection::ask_multi_read(std::int32_t xid, JuteReader& in) {
    auto plan = std::make_unique<Plan>();
    std::vector<coord::Query> queries;
    bool is_sound = true;
    for (MultiHeader header; is_sound; ) {
        header.read(in);
        if (!in.ok() || header.done) break;
        Ask asked;
        asked.type = header.type;
        const bool is_data = header.type == op::get_data;
        is_sound = (is_data || header.type == op::get_children) && asked.read(in, "pw") &&
                   !coord::is_null(asked.path);
        if (!is_sound) break;
        const BytesView path = asked.path.empty() ? BytesView("/") : asked.path;
        const bool is_path = coord::is_valid_path(path);
        plan->parts.push_back({header.type, is_path ? Errc::ok : Errc::no_node});
        const BytesView place = is_path ? path : BytesView("/");
        plan->parts.back().is_config = is_data && service_.is_config(place);
        queries.push_back(is_data ? coord::Query::get(place) : coord::Query::children(place));
    }
    if (!is_sound || !in.ok()) return answer_here(xid, op::multi_read, Errc::marshalling_error);
    add_request(xid, op::multi_read).plan = std::move(plan);
    const auto done = [ticket = ticket_](coord::Result<coord::MultiRead> result) {
        Connection* const to = ticket.find();
        if (to == nullptr) return;
        to->answer(result.error(), [&](const Slot& slot, JuteWriter& out) {
            for (std::size_t i = 0; i < result->parts.size(); i++) {
                coord::Found& found = result->parts[i];
                const Plan::Part& planned = slot.plan->parts[i];
                const Errc error = planned.doomed != Errc::ok ? planned.doomed : found.error;
                const bool is_good = error == Errc::ok;
                const std::int32_t code = wire_error(error);
                MultiHeader{is_good ? planned.type : op::error, false, code}.write(out);
                if (!is_good) {
                    out.i32(code);
                } else if (planned.type == op::get_children) {
                    out.names(found.names);
                } else {
                    if (planned.is_config) to->service_.show_config(found.stat, &found.bytes);
                    out.bytes(found.is_null ? coord::null_data : BytesView(found.bytes));
                    out.stat(found.stat);
                }
            }
            MultiHeader{-1, true, -1}.write(out);
        });
    };
    session_->multi_read(std::move(queries), done);
}

// -------------------------------------------------------------------------------------------------
// Watches

// A read that asked for a watch has been answered. Where it had none of its own, since there was
// one already, that may have fired before the answer: then one is set as of what the answer shows.
// Until then nothing else was asked for, so that no later answer can overtake its event.
inline void Connection::settle_watch(const Slot& slot, Errc error) {
    const bool is_kept = error == Errc::ok || (slot.type == op::exists && error == Errc::no_node);
    if (slot.is_armed) return;
    is_held_ = false;
    if (is_kept && arm(slot.kind, slot.text)) set_watch_since(slot, error);
}

inline void Connection::set_watch_since(const Slot& slot, Errc error) {
    coord::Watched watched = coord::Watched::data;
    if (error == Errc::no_node) watched = coord::Watched::absence;
    if (slot.kind == WatchKind::children) watched = coord::Watched::children;
    session_->watch_since(service_.replica.answer_zxid(), watched, slot.text,
                          watcher(slot.kind, slot.text), {});
}

inline void Connection::on_event(const coord::WatchEvent& event, const Armed* by) {
    if (event.type >= coord::EventType::data_watch_removed) return;  // its client does that itself
    const bool is_alike = event.type == last_event_.type && event.zxid == last_event_.zxid &&
                          event.path == last_event_.path;
    const bool is_again = std::find(last_watchers_.begin(), last_watchers_.end(), by) !=
                          last_watchers_.end();
    if (!is_alike || is_again) last_watchers_.clear();  // the next change, by the same transaction
    last_watchers_.push_back(by);
    if (last_watchers_.size() > 1 || state_ >= State::closing) return;
    last_event_ = event;
    JuteWriter writer(out_);
    const std::size_t begun = writer.begin();
    writer.i32(-1), writer.i64(-1), writer.i32(0);
    writer.i32(static_cast<std::int32_t>(event.type)), writer.i32(3);
    writer.bytes(event.path);
    end_reply(begun);
}

inline void Connection::ask_watch(std::int32_t xid, const Ask& asked) {
    const bool is_mode = asked.flags == 0 || asked.flags == 1;
    if (!is_mode || coord::is_null(asked.path)) {
        return answer_here(xid, asked.type, Errc::marshalling_error);
    }
    const WatchKind kind = asked.flags == 0 ? WatchKind::persistent : WatchKind::recursive;
    const BytesView path = asked.path.empty() ? BytesView("/") : asked.path;
    const Bytes good(4, '\0');
    if (!coord::is_valid_path(path) || !arm(kind, path)) {
        return answer_here(xid, asked.type, Errc::ok, good);
    }
    Slot& slot = add_request(xid, asked.type);
    slot.text.assign(path), slot.kind = kind, slot.is_watch = slot.is_armed = true;
    const auto mode = static_cast<coord::AddWatchMode>(asked.flags);
    const auto done = [ticket = ticket_](coord::Result<void> result) {
        Connection* const to = ticket.find();
        if (to == nullptr) return;
        to->answer(result.error(), [](const Slot&, JuteWriter& writer) { writer.i32(0); });
    };
    session_->add_watch(path, mode, watcher(kind, path), done);
}

// As in ZooKeeper 3.8: whether anybody here watches that path.
inline void Connection::check_watches(std::int32_t xid, const Ask& asked) {
    if (asked.flags < 1 || asked.flags > 5 || coord::is_null(asked.path)) {
        return answer_here(xid, asked.type, Errc::marshalling_error);
    }
    const auto wanted = static_cast<coord::WatcherType>(asked.flags);
    coord::WatchRow row;
    row.path = asked.path;
    bool is_there = false;
    for (bool more = true; more && !is_there;) {
        const auto rows = service_.replica.list_watches(coord::WatchOrder::by_path, row, 16);
        more = !rows.empty();
        for (const coord::WatchRow& one : rows) {
            const bool is_same = one.path == asked.path;
            const bool is_data = one.kind != coord::WatchKind::children;
            const bool is_children = one.kind != coord::WatchKind::data &&
                                     one.kind != coord::WatchKind::recursive;
            const bool fits = wanted == coord::WatcherType::any ||
                              (wanted == coord::WatcherType::children ? is_children : is_data);
            more = more && is_same;
            is_there = is_there || (is_same && fits);
            row = one;
        }
    }
    answer_here(xid, asked.type, is_there ? Errc::ok : Errc::no_watcher);
}

inline void Connection::remove_watches(std::int32_t xid, const Ask& asked) {
    if (asked.flags < 1 || asked.flags > 5) {
        return answer_here(xid, asked.type, Errc::marshalling_error);
    }
    const BytesView path = asked.path;
    if (!coord::is_valid_path(path)) return answer_here(xid, asked.type, Errc::no_watcher);
    add_request(xid, asked.type);
    is_held_ = true;  // which watches there are is known when it has been done
    session_->remove_watches(path, static_cast<coord::WatcherType>(asked.flags),
                             [ticket = ticket_](coord::Result<void> done) {
                                 Connection* const to = ticket.find();
                                 if (to == nullptr) return;
                                 to->is_held_ = false;
                                 to->on_done(done.error());
                             });
}

inline void Connection::ask_set_watches(std::int32_t xid, std::int32_t type, JuteReader& in) {
    const auto since = static_cast<std::uint64_t>(in.i64());
    struct List {
        WatchKind kind;
        coord::Watched watched;
    };
    static constexpr List lists[] = {{WatchKind::data, coord::Watched::data},
                                     {WatchKind::data, coord::Watched::absence},
                                     {WatchKind::children, coord::Watched::children},
                                     {WatchKind::persistent, coord::Watched::persistent},
                                     {WatchKind::recursive, coord::Watched::persistent}};
    const std::size_t many = type == op::set_watches ? 3 : 5;
    std::vector<Rewatch> found;
    for (std::size_t i = 0; i < many; i++) {
        for (std::size_t left = in.count(4); left > 0 && in.ok(); left--) {
            const BytesView path = in.bytes();
            if (!coord::is_valid_path(path)) continue;
            found.push_back({lists[i].kind, lists[i].watched, Bytes(path)});
        }
    }
    if (!in.ok()) return answer_here(xid, type, Errc::marshalling_error);
    if (found.empty()) return answer_here(xid, type, Errc::ok);
    const coord::Zxid applied = service_.replica.machine().applied();
    rewatch_since_ = (std::min)(coord::Zxid{since}, applied);
    rewatches_.assign(std::make_move_iterator(found.rbegin()),
                      std::make_move_iterator(found.rend()));
    add_slot(xid, type).parts = static_cast<std::uint32_t>(found.size());
}

inline void Connection::put_next_watch() {
    const Rewatch next = std::move(rewatches_.back());
    rewatches_.pop_back();
    const bool is_new = arm(next.kind, next.path);
    in_flight_ += 1, service_.outstanding += 1;
    const auto done = [ticket = ticket_](coord::Result<void> result) {
        if (Connection* to = ticket.find()) to->on_watch_put(result.error());
    };
    // What stays at a node that is not there hears of nothing that was: whether it has gone since,
    // or was never there, cannot be told.
    const bool is_recursive = next.kind == WatchKind::recursive;
    const bool is_persistent = next.kind == WatchKind::persistent;
    // And one for what was not there is set beside one for what was: that may end at once, and what
    // was made meanwhile is an event of this one.
    const bool is_due = next.watched == coord::Watched::absence;
    if (!is_new && !is_due) {
        session_->sync(done);  // it is there: it only has to come in its turn
    } else if (is_recursive ||
               (is_persistent && !service_.replica.tree().contains(next.path))) {
        const auto mode = is_recursive ? coord::AddWatchMode::persistent_recursive
                                       : coord::AddWatchMode::persistent;
        session_->add_watch(next.path, mode, watcher(next.kind, next.path), done);
    } else {
        session_->watch_since(rewatch_since_, next.watched, next.path,
                              watcher(next.kind, next.path, is_new), done);
    }
}

inline void Connection::on_watch_put(Errc error) {
    if (!take_answer(error)) return;
    last_watchers_.clear();  // of what is gone each list hears, as in ZooKeeper
    Slot& slot = slots_.front();
    if (error != Errc::ok) slot.error = wire_error(error);
    slot.parts -= 1;
    slot.is_done = slot.parts == 0;
    emit_done();
}

}  // namespace zkserver
