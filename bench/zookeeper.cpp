// The load of bench/zookeeper.py: what a server of ZooKeeper's client protocol bears, whoever has
// written it. Raw sockets, one thread, one epoll; wall time, since the server is another process.
//
//     bench_zookeeper CASE --ports=P[,P ...] [--clients=N] [--flight=N] [--seconds=S]
//     bench_zookeeper fill --ports=P --nodes=N      makes N nodes of 100 bytes
//     bench_zookeeper first --ports=P[,P ...]       writes as soon as any of them takes a write
//
// CASE is set, get, create, mix (nine gets for a set), lock or watch. Each client has so many
// requests in flight: of lock so many locks that all clients want, of watch so many nodes that all
// of them watch while one more client sets. Clients are spread over the ports. A row is
//
//     operations a second, and of one operation the median and the 99th percentile in ms
//
// where an operation is an answer, a lock taken and given back, or an event; and the time of watch
// is from the set to the last event of it.
//
// fill prints seconds, first prints CLOCK_MONOTONIC in seconds when it has been answered.
#include "zkserver/jute.hpp"
#include "zkserver/sockets.hpp"

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace {

using coord::Bytes;
using coord::BytesView;
using zkserver::Fd;
using zkserver::JuteReader;
using zkserver::JuteWriter;
namespace op = zkserver::op;

struct Options {
    std::string what;
    std::vector<int> ports;
    std::size_t clients = 1;
    std::size_t flight = 1;
    std::size_t nodes = 1000000;
    double seconds = 3;
};

double now_s() {
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

[[noreturn]] void give_up(const std::string& why) {
    std::fprintf(stderr, "bench_zookeeper: %s\n", why.c_str());
    std::exit(1);
}

// -------------------------------------------------------------------------------------------------
// Requests

Bytes of_path(BytesView path) {
    Bytes body;
    JuteWriter(body).bytes(path);
    return body;
}
Bytes of_read(BytesView path, bool watch) {
    Bytes body = of_path(path);
    JuteWriter(body).boolean(watch);
    return body;
}
Bytes of_set(BytesView path, BytesView data) {
    Bytes body = of_path(path);
    JuteWriter writer(body);
    writer.bytes(data), writer.i32(-1);
    return body;
}
Bytes of_create(BytesView path, BytesView data, std::int32_t flags) {
    Bytes body = of_path(path);
    JuteWriter writer(body);
    writer.bytes(data);
    writer.count(1), writer.i32(31), writer.bytes("world"), writer.bytes("anyone");
    writer.i32(flags);
    return body;
}
Bytes of_delete(BytesView path) {
    Bytes body = of_path(path);
    JuteWriter(body).i32(-1);
    return body;
}

// -------------------------------------------------------------------------------------------------
// A client

struct Answer {
    std::int32_t type = 0;    // what was asked; -1: an event
    std::size_t mark = 0;     // what the asker has put there
    double asked_at = 0;
    std::int32_t error = 0;
    BytesView body;           // of an event its path
};

class Client {
public:
    std::size_t index = 0;

    bool dial(int port) {
        zkserver::SocketAddress address;
        if (!address.resolve("127.0.0.1", port).empty()) return false;
        fd_ = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        zkserver::set_no_delay(fd_.get());
        if (::connect(fd_.get(), address.get(), address.size) != 0) return false;
        fcntl(fd_.get(), F_SETFL, O_NONBLOCK);
        JuteWriter writer(out_);
        const std::size_t begun = writer.begin();
        writer.i32(0), writer.i64(0), writer.i32(30000), writer.i64(0);
        writer.bytes(Bytes(16, '\0')), writer.boolean(false);
        writer.end(begun);
        return true;
    }
    int fd() const { return fd_.get(); }
    void hang_up() { fd_.close(); }
    bool is_open() const { return is_open_; }  // it has a session
    std::size_t waiting() const { return asked_.size(); }

    void ask(std::int32_t type, const Bytes& body, std::size_t mark = 0) {
        JuteWriter writer(out_);
        const std::size_t begun = writer.begin();
        xid_ = xid_ == INT32_MAX ? 1 : xid_ + 1;
        writer.i32(xid_), writer.i32(type);
        out_ += body;
        writer.end(begun);
        asked_.push_back({type, mark, now_s(), xid_});
    }
    // RETURNS false when the connection has ended.
    bool send() {
        while (sent_ < out_.size()) {
            const ssize_t size =
                ::send(fd_.get(), out_.data() + sent_, out_.size() - sent_, MSG_NOSIGNAL);
            if (size < 0 && (errno == EAGAIN || errno == EINTR)) break;
            if (size <= 0) return false;
            sent_ += static_cast<std::size_t>(size);
        }
        if (sent_ == out_.size()) out_.clear(), sent_ = 0;
        return true;
    }
    bool has_more() const { return sent_ < out_.size(); }
    template <class Visit>
    bool receive(Visit&& visit) {
        char chunk[64 * 1024];
        const ssize_t size = ::recv(fd_.get(), chunk, sizeof chunk, 0);
        if (size < 0 && (errno == EAGAIN || errno == EINTR)) return true;
        if (size <= 0) return false;
        in_.append(chunk, static_cast<std::size_t>(size));
        BytesView rest = in_;
        while (rest.size() >= 4) {
            const std::size_t length = coord::Reader(rest).u32();
            if (rest.size() < 4 + length) break;
            if (!take(rest.substr(4, length), visit)) return false;
            rest.remove_prefix(4 + length);
        }
        in_.erase(0, in_.size() - rest.size());
        return true;
    }

private:
    struct Asked {
        std::int32_t type;
        std::size_t mark;
        double at;
        std::int32_t xid;
    };

    template <class Visit>
    bool take(BytesView frame, Visit&& visit) {
        JuteReader in(frame);
        if (!is_open_) {
            in.i32();
            return is_open_ = in.i32() > 0, is_open_;
        }
        Answer answer;
        const std::int32_t xid = in.i32();
        in.i64();
        answer.error = in.i32();
        if (xid == -1) {
            in.i32(), in.i32();
            answer.type = -1, answer.body = in.bytes();
            visit(answer);
            return true;
        }
        if (asked_.empty() || asked_.front().xid != xid) return false;
        const Asked asked = asked_.front();
        asked_.pop_front();
        answer.type = asked.type, answer.mark = asked.mark, answer.asked_at = asked.at;
        answer.body = frame.substr(16);
        visit(answer);
        return true;
    }

    Fd fd_;
    Bytes in_, out_;
    std::size_t sent_ = 0;
    std::int32_t xid_ = 0;
    bool is_open_ = false;
    std::deque<Asked> asked_;
};

// -------------------------------------------------------------------------------------------------
// Cases

struct Tally {
    bool is_counting = false;
    std::uint64_t operations = 0;
    std::vector<float> ms;

    void add(double begun_at, std::uint64_t count = 1) {
        if (!is_counting) return;
        operations += count;
        ms.push_back(static_cast<float>((now_s() - begun_at) * 1e3));
    }
    double percentile(double part) {
        if (ms.empty()) return 0;
        std::sort(ms.begin(), ms.end());
        const auto at = static_cast<std::size_t>(part * static_cast<double>(ms.size() - 1));
        return static_cast<double>(ms[at]);
    }
};

class Case {
public:
    Case(const Options& options, Bytes base) : options_(options), base_(std::move(base)) {}
    virtual ~Case() = default;
    virtual std::size_t clients() const { return options_.clients; }
    virtual std::vector<Bytes> nodes() const = 0;       // that have to be there, parents first
    virtual void begin(Client& client) = 0;
    virtual void on_answer(Client& client, const Answer& answer) = 0;
    virtual std::vector<Bytes> made(std::size_t) const { return {}; }  // by that client, to go
    void stop() { is_stopping_ = true; }

    Tally tally;

protected:
    Bytes below(std::size_t i) const { return base_ + "/" + std::to_string(i); }
    const Options& options_;
    const Bytes base_;
    const Bytes data_ = Bytes(100, 'x');
    bool is_stopping_ = false;
};

// set, get, create and mix: each client asks again when it has been answered.
class Rows final : public Case {
public:
    Rows(const Options& options, const Bytes& base)
        : Case(options, base), made_(options.clients), asked_(options.clients) {}

    std::vector<Bytes> nodes() const override {
        std::vector<Bytes> all;
        for (std::size_t i = 0; i < options_.clients; i++) all.push_back(below(i));
        return all;
    }
    void begin(Client& client) override {
        for (std::size_t i = 0; i < options_.flight; i++) ask(client);
    }
    void on_answer(Client& client, const Answer& answer) override {
        if (answer.error != 0) give_up("an answer is " + std::to_string(answer.error));
        tally.add(answer.asked_at);
        if (!is_stopping_) ask(client);
    }
    std::vector<Bytes> made(std::size_t client) const override {
        std::vector<Bytes> all;
        for (std::size_t i = 0; i < made_[client]; i++) all.push_back(child(client, i));
        return all;
    }

private:
    Bytes child(std::size_t client, std::size_t i) const {
        return below(client) + "/n" + std::to_string(i);
    }
    void ask(Client& client) {
        const std::size_t turn = asked_[client.index]++;
        const bool is_set = options_.what == "set" || (options_.what == "mix" && turn % 10 == 0);
        if (options_.what == "create") {
            const std::size_t i = made_[client.index]++;
            client.ask(op::create, of_create(child(client.index, i), data_, 0));
        } else if (is_set) {
            client.ask(op::set_data, of_set(below(client.index), data_));
        } else {
            client.ask(op::get_data, of_read(below(client.index), false));
        }
    }

    std::vector<std::size_t> made_, asked_;
};

// ZooKeeper's recipe: a node in a row, and a watch on the one before it.
class Locks final : public Case {
public:
    Locks(const Options& options, const Bytes& base) : Case(options, base) {
        places_.resize(options.clients);
        for (std::vector<Place>& row : places_) row.resize(options.flight);
    }
    std::vector<Bytes> nodes() const override {
        std::vector<Bytes> all;
        for (std::size_t i = 0; i < options_.flight; i++) all.push_back(below(i));
        return all;
    }
    void begin(Client& client) override {
        for (std::size_t i = 0; i < options_.flight; i++) want(client, i);
    }
    void on_answer(Client& client, const Answer& answer) override {
        if (answer.type == -1) return on_event(client, answer.body);
        const std::size_t lock = answer.mark;
        Place& place = places_[client.index][lock];
        switch (answer.type) {
            case op::create:
                if (answer.error != 0) give_up("a lock's node is not made");
                place.path = Bytes(JuteReader(answer.body).bytes());
                return list(client, lock);
            case op::get_children: return on_list(client, lock, answer.body);
            case op::exists:
                if (answer.error != 0) list(client, lock);
                return;
            default:
                tally.add(place.begun_at);
                if (!is_stopping_) want(client, lock);
        }
    }

private:
    struct Place {
        Bytes path;
        double begun_at = 0;
    };

    void want(Client& client, std::size_t lock) {
        places_[client.index][lock].begun_at = now_s();
        client.ask(op::create, of_create(below(lock) + "/l-", "", 3), lock);
    }
    void list(Client& client, std::size_t lock) {
        client.ask(op::get_children, of_read(below(lock), false), lock);
    }
    void on_list(Client& client, std::size_t lock, BytesView body) {
        const Bytes& path = places_[client.index][lock].path;
        const BytesView own = BytesView(path).substr(path.rfind('/') + 1);
        JuteReader in(body);
        BytesView before;
        for (std::size_t left = in.count(4); left > 0; left--) {
            const BytesView name = in.bytes();
            if (name < own && name > before) before = name;
        }
        if (before.empty()) return client.ask(op::remove, of_delete(path), lock);
        const Bytes watched = below(lock) + "/" + Bytes(before);
        client.ask(op::exists, of_read(watched, true), lock);
    }
    void on_event(Client& client, BytesView path) {
        const std::size_t from = base_.size() + 1;
        list(client, std::strtoul(Bytes(path.substr(from)).c_str(), nullptr, 10));
    }

    std::vector<std::vector<Place>> places_;
};

// All clients but the last one watch all nodes; that one sets a node when all watch it.
class Watches final : public Case {
public:
    Watches(const Options& options, const Bytes& base)
        : Case(options, base), nodes_(options.flight) {}
    std::size_t clients() const override { return options_.clients + 1; }
    std::vector<Bytes> nodes() const override {
        std::vector<Bytes> all;
        for (std::size_t i = 0; i < options_.flight; i++) all.push_back(below(i));
        return all;
    }
    void begin(Client& client) override {
        if (client.index == options_.clients) return static_cast<void>(setter_ = &client);
        for (std::size_t i = 0; i < options_.flight; i++) watch(client, i);
    }
    void on_answer(Client& client, const Answer& answer) override {
        if (answer.type != -1) {
            if (answer.error != 0) give_up("an answer is " + std::to_string(answer.error));
            nodes_[answer.mark].ready += 1;
            return set(answer.mark);
        }
        const Bytes path(answer.body.substr(base_.size() + 1));
        const std::size_t i = std::strtoul(path.c_str(), nullptr, 10);
        Node& node = nodes_[i];
        node.told += 1;
        if (node.told == options_.clients) tally.add(node.set_at, options_.clients);
        watch(client, i);
    }

private:
    struct Node {
        std::size_t ready = 1;  // watchers, and the setter, that have been answered
        std::size_t told = 0;
        double set_at = 0;
    };

    void watch(Client& client, std::size_t i) {
        client.ask(op::get_data, of_read(below(i), true), i);
    }
    void set(std::size_t i) {
        Node& node = nodes_[i];
        if (node.ready < options_.clients + 1 || setter_ == nullptr || is_stopping_) return;
        node = Node{0, 0, now_s()};
        setter_->ask(op::set_data, of_set(below(i), data_), i);
    }

    std::vector<Node> nodes_;
    Client* setter_ = nullptr;
};

// -------------------------------------------------------------------------------------------------
// The loop

class Load {
public:
    using OnAnswer = coord::Callback<void(Client&, const Answer&)>;

    void open(const Options& options, std::size_t count) {
        for (std::size_t i = 0; i < count; i++) {
            clients_.push_back(std::make_unique<Client>());
            Client& client = *clients_.back();
            client.index = i;
            if (!client.dial(options.ports[i % options.ports.size()])) give_up("nobody listens");
            poller_.add(client.fd(), EPOLLIN, tag(i));
        }
        const double until = now_s() + 30;
        for (const auto& client : clients_) {
            while (!client->is_open()) turn(until, [](Client&, const Answer&) {});
        }
    }
    Client& client(std::size_t i) { return *clients_[i]; }
    std::size_t size() const { return clients_.size(); }

    template <class Visit>
    void turn(double until, Visit&& visit) {
        if (now_s() > until) give_up("it takes too long");
        for (const auto& each : clients_) {
            const bool had_more = each->has_more();
            if (!each->send()) give_up("a connection has ended");
            if (had_more && each->has_more()) is_full_ = true;
        }
        const int wait_ms = std::exchange(is_full_, false) ? 1 : 10;
        poller_.wait(wait_ms, [&](zkserver::Tag which, std::uint32_t) {
            Client& from = *clients_[which.index];
            if (from.receive([&](const Answer& answer) { visit(from, answer); })) return;
            if (!is_closing_ || from.waiting() > 0) give_up("a connection has ended");
            from.hang_up();
        });
    }
    // Until everything that was asked has been answered.
    template <class Visit>
    void drain(Visit&& visit) {
        const double until = now_s() + 120;
        for (const auto& each : clients_) {
            while (each->waiting() > 0) turn(until, visit);
        }
    }
    void drain() {
        drain([](Client&, const Answer&) {});
    }
    // Asks for each path, with so many in flight.
    template <class Ask>
    void all(Client& by, const std::vector<Bytes>& paths, Ask&& ask) {
        const auto ignore = [](Client&, const Answer&) {};
        for (const Bytes& path : paths) {
            while (by.waiting() >= 128) turn(now_s() + 60, ignore);
            ask(path);
        }
        drain();
    }
    void close() {
        is_closing_ = true;
        for (const auto& each : clients_) each->ask(op::close_session, {});
        drain();
    }

private:
    static zkserver::Tag tag(std::size_t i) {
        return {zkserver::Tag::Kind::client, static_cast<std::uint32_t>(i)};
    }
    zkserver::Poller poller_;
    std::vector<std::unique_ptr<Client>> clients_;
    bool is_full_ = false;
    bool is_closing_ = false;
};

int run_case(const Options& options) {
    const Bytes base = "/bench" + std::to_string(static_cast<long long>(now_s() * 1e6));
    std::unique_ptr<Case> place;
    if (options.what == "lock") {
        place = std::make_unique<Locks>(options, base);
    } else if (options.what == "watch") {
        place = std::make_unique<Watches>(options, base);
    } else {
        place = std::make_unique<Rows>(options, base);
    }
    Case& work = *place;
    Load load;
    load.open(options, work.clients());
    Client& first = load.client(0);
    const Bytes data(100, 'x');
    std::vector<Bytes> nodes = work.nodes();
    nodes.insert(nodes.begin(), base);
    load.all(first, nodes,
             [&](const Bytes& path) { first.ask(op::create, of_create(path, data, 0)); });
    // The others may be at servers that have not come so far.
    for (std::size_t i = 0; i < load.size(); i++) load.client(i).ask(op::sync, of_path("/"));
    load.drain();

    const auto visit = [&work](Client& c, const Answer& answer) { work.on_answer(c, answer); };
    for (std::size_t i = load.size(); i > 0; i--) work.begin(load.client(i - 1));
    const double warm = now_s() + options.seconds / 4;
    while (now_s() < warm) load.turn(warm + 60, visit);
    work.tally.is_counting = true;
    const double begun = now_s();
    const double end = begun + options.seconds;
    while (now_s() < end) load.turn(end + 60, visit);
    const double took = now_s() - begun;
    work.tally.is_counting = false;
    work.stop();
    load.drain(visit);
    const double rate = static_cast<double>(work.tally.operations) / took;
    std::printf("%.0f %.3f %.3f\n", rate, work.tally.percentile(0.5), work.tally.percentile(0.99));

    for (std::size_t i = 0; i < load.size(); i++) {
        Client& client = load.client(i);
        load.all(client, i < options.clients ? work.made(i) : std::vector<Bytes>(),
                 [&](const Bytes& path) { client.ask(op::remove, of_delete(path)); });
    }
    std::reverse(nodes.begin(), nodes.end());
    load.all(first, nodes, [&](const Bytes& path) { first.ask(op::remove, of_delete(path)); });
    load.close();
    return work.tally.operations > 0 ? 0 : 1;
}

// A thousand parents, since a list of a million names fits in no answer of ZooKeeper's.
int fill(const Options& options) {
    Load load;
    load.open(options, 1);
    Client& client = load.client(0);
    const double begun = now_s();
    const Bytes data(100, 'x');
    const auto count = [](Client&, const Answer& answer) {
        if (answer.error != 0) give_up("a node is not made");
    };
    const auto create = [&](const Bytes& path) {
        while (client.waiting() >= 512) load.turn(now_s() + 60, count);
        client.ask(op::create, of_create(path, data, 0));
    };
    create("/fill");
    const std::size_t parents = (std::min)(options.nodes, std::size_t{1000});
    for (std::size_t i = 0; i < parents; i++) create("/fill/" + std::to_string(i));
    for (std::size_t i = 0; i < options.nodes; i++) {
        create("/fill/" + std::to_string(i % parents) + "/node" + std::to_string(i));
    }
    load.drain(count);
    load.close();
    std::printf("%.3f\n", now_s() - begun);
    return 0;
}

// Tries all ports again and again, a connection to each at a time.
int first(const Options& options) {
    struct Try {
        std::unique_ptr<Client> client;
        double until = 0;
        bool has_asked = false;
    };
    std::vector<Try> tries(options.ports.size());
    const double end = now_s() + 120;
    bool is_done = false;
    for (std::size_t turn = 0; !is_done && now_s() < end; turn++) {
        for (std::size_t i = 0; i < tries.size() && !is_done; i++) {
            Try& one = tries[i];
            if (!one.client) {
                one = Try{std::make_unique<Client>(), now_s() + 2, false};
                if (!one.client->dial(options.ports[i])) one.client.reset();
                if (!one.client) continue;
            }
            bool lives = now_s() < one.until && one.client->send();
            lives = lives && one.client->receive([&](const Answer& answer) {
                is_done = is_done || answer.error == 0;
            });
            if (lives && one.client->is_open() && !one.has_asked) {
                one.has_asked = true;
                one.client->ask(op::create, of_create("/first", "", 3));
            }
            if (!lives) one.client.reset();
        }
        if (!is_done) usleep(500);
    }
    if (!is_done) give_up("nobody has taken a write");
    std::printf("%.6f\n", now_s());
    return 0;
}

bool takes(const std::string& argument, const std::string& name, std::string& value) {
    if (argument.compare(0, name.size(), name) != 0) return false;
    value = argument.substr(name.size());
    return true;
}

bool read_options(int argc, char** argv, Options& options) {
    for (int i = 1; i < argc; i++) {
        std::string value;
        const auto number = [&value] { return std::strtoul(value.c_str(), nullptr, 10); };
        if (takes(argv[i], "--clients=", value)) {
            options.clients = number();
        } else if (takes(argv[i], "--flight=", value)) {
            options.flight = number();
        } else if (takes(argv[i], "--nodes=", value)) {
            options.nodes = number();
        } else if (takes(argv[i], "--seconds=", value)) {
            options.seconds = std::strtod(value.c_str(), nullptr);
        } else if (takes(argv[i], "--ports=", value)) {
            for (std::size_t at = 0; at < value.size();) {
                options.ports.push_back(std::atoi(value.c_str() + at));
                at = (std::min)(value.find(',', at), value.size()) + 1;
            }
        } else {
            options.what = argv[i];
        }
    }
    const bool is_sound = options.clients > 0 && options.flight > 0 && options.nodes > 0;
    return is_sound && !options.ports.empty() && !options.what.empty();
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    if (!read_options(argc, argv, options)) give_up("usage: see the head of its source");
    for (const char* const what : {"set", "get", "create", "mix", "lock", "watch"}) {
        if (options.what == what) return run_case(options);
    }
    if (options.what == "fill") return fill(options);
    if (options.what == "first") return first(options);
    give_up("there is no case " + options.what);
}
