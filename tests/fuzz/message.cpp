// Fuzz target: bytes that claim to be a message of a peer. They decode, or they are corrupt or of
// another version; what decodes is encoded to the same bytes again, so that there is one spelling
// of each message.
// How to run it: fuzz.hpp.
//
// ctest: --runs=300000
//
// Input: u8 flags, then the bytes; flag 1: the checksum and the magic are put right first, and, but
// for flag 4, the version. Flag 2:
// they claim to be a sealed message, of a peer that has been met; with flag 1 the seal is right,
// without it the key is another one than the corpus was sealed with.
#include "fuzz.hpp"

namespace {

using fuzz::Bytes;
using fuzz::BytesView;
using fuzz::Errc;

constexpr std::size_t crc_at = 4;

void put_right(Bytes& bytes, bool is_own_version) {
    if (bytes.size() < 10) return;
    fuzz::put_u32(bytes, 0, 0x636f7202);  // FORMAT: magic and format
    if (is_own_version) {
        bytes[8] = static_cast<char>(coord::protocol_version >> 8);
        bytes[9] = static_cast<char>(coord::protocol_version & 255);
    }
    // A proposal's entries have checksums of their own; they come after the payload's length.
    constexpr std::size_t type_at = 34, entries_at = coord::message_header_bytes + 8 + 8 + 4;
    BytesView covered = bytes;
    const bool is_proposal = bytes.size() > type_at &&
                             bytes[type_at] == static_cast<char>(coord::MessageType::proposal);
    if (is_proposal) covered = covered.substr(0, entries_at);
    fuzz::put_u32(bytes, crc_at, coord::crc32c(covered.substr(8)));
}

coord::Message message_of(std::uint8_t type, BytesView payload) {
    coord::Message message;
    message.type = static_cast<coord::MessageType>(type);
    message.from = coord::PeerId{1}, message.to = coord::PeerId{2};
    message.ensemble = 7, message.nonce = 0x0102030405060708;
    message.epoch = 3, message.attempt = 4, message.leader = coord::PeerId{1};
    message.accepted_epoch = 3, message.current_epoch = 2;
    message.zxid = coord::Zxid{3, 9}, message.crc = 0xdeadbeef, message.commit = coord::Zxid{3, 8};
    message.digest = 0x1112131415161718, message.sequence = 5, message.confirmed = 6;
    message.touch = 7, message.offset = 8, message.total = 100, message.phase = 1;
    message.payload = payload;
    return message;
}

const Bytes key = "32 bytes that nobody else has. ..";
constexpr coord::PeerId self{1}, peer{2};
constexpr coord::Time now{1000000000};

coord::Seals seals_of(coord::PeerId id, std::uint64_t nonce, bool is_right = true) {
    const Bytes own = is_right ? key.substr(0, 32) : Bytes(32, 'x');
    return coord::Seals(id, 7, nonce, nonce, {own}, coord::milliseconds(50));
}

void put_seal_right(Bytes& bytes) {  // FORMAT
    if (bytes.size() < coord::Seals::overhead_bytes) return;
    fuzz::put_u32(bytes, 0, 0x636f7301);
    const auto half = [](BytesView of) {
        coord::SipHash words;
        for (std::size_t i = 8; i > 0; i--) {
            words.low = words.low << 8 | static_cast<unsigned char>(of[i - 1]);
            words.high = words.high << 8 | static_cast<unsigned char>(of[i + 7]);
        }
        return words;
    };
    Bytes context = "coord: seal";
    coord::Writer writer(context);
    writer.u64(7), writer.u32(peer.value), writer.u32(self.value);
    coord::SipHash made = coord::siphash(context, half(key));
    made.low ^= half(key.substr(16)).low, made.high ^= half(key.substr(16)).high;
    const std::size_t end = bytes.size() - 16;
    const coord::SipHash hash = coord::siphash(BytesView(bytes).substr(0, end), made);
    for (std::size_t i = 0; i < 8; i++) {
        bytes[end + i] = static_cast<char>(hash.low >> 8 * i);
        bytes[end + i + 8] = static_cast<char>(hash.high >> 8 * i);
    }
}

// K1, K2: without the key nothing; with it, only an answer to a challenge is more than a message.
void open_sealed(Bytes& bytes, bool is_right) {
    coord::Seals own = seals_of(self, 10, is_right), other = seals_of(peer, 20, is_right);
    BytesView message, answer;
    Bytes hello(own.seal(now, peer, "x"));
    other.open(now, self, hello, message, answer);
    hello = Bytes(answer);
    own.open(now, peer, hello, message, answer);
    fuzz::expect(own.life_of(peer) == 20, "they have met");
    if (is_right) put_seal_right(bytes);
    using Verdict = coord::Seals::Verdict;
    const Verdict verdict = own.open(now, peer, bytes, message, answer);
    fuzz::expect(is_right || verdict == Verdict::unsealed, "nothing opens without the key");
    fuzz::expect(is_right || answer.empty(), "strangers have no answer");
    fuzz::expect(message.empty() || verdict == Verdict::message, "what is handed on was sealed");
    fuzz::expect(own.life_of(peer) == 20, "a hello alone says nothing of who lives now");
    if (verdict != Verdict::message) return;
    const Verdict again = own.open(now, peer, bytes, message, answer);
    fuzz::expect(again == Verdict::replayed, "a message is handed on once");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    Bytes bytes(fuzz::view(data, size).substr(1));
    if ((data[0] & 2) != 0) return open_sealed(bytes, (data[0] & 1) != 0), 0;
    if ((data[0] & 1) != 0) put_right(bytes, (data[0] & 4) == 0);
    coord::Message message;
    const Errc error = coord::decode_message(bytes, message);
    if (error != Errc::ok) {
        fuzz::expect(error == Errc::corrupt || error == Errc::other_version,
                     "a message decodes, or is corrupt or of another version");
        const bool is_own = data[0] % 8 == 1 && bytes.size() >= 10;
        fuzz::expect(!is_own || error == Errc::corrupt, "what is of this version is not refused");
        return 0;
    }
    const BytesView whole = bytes;
    fuzz::expect(message.payload.empty() || (message.payload.data() >= whole.data() &&
                                             message.payload.data() + message.payload.size() <=
                                                 whole.data() + whole.size()),
                 "the payload is a part of the message");
    Bytes again;
    coord::encode_message(message, again);
    fuzz::expect(again == bytes, "a message has one encoding");
    fuzz::expect(bytes.size() <= coord::message_overhead_bytes + message.payload.size(),
                 "the overhead of a message is bounded");
    return 0;
}

std::vector<Bytes> fuzz::seeds() {
    std::vector<Bytes> out;
    for (std::uint8_t type = 1; type <= coord::message_type_last; type++) {
        for (const BytesView payload : {BytesView(), BytesView("some payload")}) {
            out.emplace_back(1, '\1');
            coord::encode_message(message_of(type, payload), out.back());
        }
    }
    // Both kinds, of a life that is known to one that is.
    coord::Seals own = seals_of(self, 10), other = seals_of(peer, 20);
    BytesView message, answer;
    const Bytes hello(other.seal(now, self, "x"));
    own.open(now, peer, hello, message, answer);
    const Bytes back(answer);
    other.open(now, self, back, message, answer);
    for (const Bytes& each : {hello, back, Bytes(answer), Bytes(other.seal(now, self, "text"))}) {
        out.push_back('\2' + each);
        out.push_back('\3' + each);
    }
    return out;
}
