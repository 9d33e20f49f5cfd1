import { describe, expect, it } from "vitest";
import { type GuestPeers, MAX_RANKS_PER_VM } from "../protocol/messages.js";
import { PeerPictures } from "./peer-pictures.js";

const none = { fragments: 0, bytes: 0 };
const part = (rank: number, first: number, total: number, peers: number[]): GuestPeers => ({
  ...{ type: "peers", session: "0123456789abcdef", answer: 1, job: "j", rank, first, total },
  peers: peers.map((peer) => ({ rank: peer, route: "openib", epoch: 1, openib: none, tcp: none })),
});
const ranksOf = (pictures: PeerPictures, rank: number) => pictures.of("j", rank)?.map((p) => p.rank);

describe("PeerPictures", () => {
  it("puts a picture together, by peer, and shows it only whole", () => {
    const pictures = new PeerPictures();
    pictures.take(part(0, 0, 3, [5, 1]));
    expect(pictures.of("j", 0)).toBeUndefined();
    pictures.take(part(0, 2, 3, [3]));
    expect(ranksOf(pictures, 0)).toEqual([1, 3, 5]);
    expect(pictures.of("k", 0)).toBeUndefined();
  });

  it("takes no part twice, none out of order, and begins anew at the first", () => {
    const pictures = new PeerPictures();
    pictures.take(part(0, 1, 2, [9]));
    pictures.take(part(0, 0, 2, [1]));
    pictures.take(part(0, 1, 3, [7]));
    pictures.take(part(0, 1, 2, [2]));
    pictures.take(part(0, 1, 2, [3]));
    expect(ranksOf(pictures, 0)).toEqual([1, 2]);
    pictures.take(part(0, 0, 1, [4]));
    expect(ranksOf(pictures, 0)).toEqual([4]);
    pictures.take(part(0, 0, 1, [4, 5, 6]));
    expect(pictures.of("j", 0)).toBeUndefined();
  });

  it("holds no more ranks than a VM may have", () => {
    const pictures = new PeerPictures();
    for (let rank = 0; rank <= MAX_RANKS_PER_VM; rank++) pictures.take(part(rank, 0, 1, [0]));
    expect(ranksOf(pictures, MAX_RANKS_PER_VM - 1)).toEqual([0]);
    expect(pictures.of("j", MAX_RANKS_PER_VM)).toBeUndefined();
  });
});
