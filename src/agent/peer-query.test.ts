import { describe, expect, it } from "vitest";
import { PeerQuery } from "./peer-query.js";

describe("PeerQuery", () => {
  it("is complete when every rank asked has told its last entry", () => {
    const query = new PeerQuery<string>();
    expect(query.isComplete).toBe(true);
    query.ask("a");
    query.ask("b");
    expect(query.take("a", { first: 0, total: 3, count: 2 })).toBe(true);
    expect(query.take("b", { first: 0, total: 0, count: 0 })).toBe(true);
    expect(query.isComplete).toBe(false);
    expect(query.take("a", { first: 2, total: 3, count: 1 })).toBe(true);
    expect(query.isComplete).toBe(true);
  });

  it("takes no part of an answer that began before it asked, no part twice, and none unasked", () => {
    const query = new PeerQuery<string>();
    query.ask("a");
    expect(query.take("a", { first: 2, total: 4, count: 2 })).toBe(false);
    expect(query.take("a", { first: 0, total: 4, count: 2 })).toBe(true);
    expect(query.take("a", { first: 0, total: 4, count: 2 })).toBe(false);
    expect(query.take("x", { first: 0, total: 1, count: 1 })).toBe(false);
    expect(query.take("a", { first: 2, total: 4, count: 2 })).toBe(true);
    expect(query.take("a", { first: 0, total: 4, count: 4 })).toBe(false);
  });

  it("does not wait for a rank that is gone", () => {
    const query = new PeerQuery<string>();
    query.ask("a");
    expect(query.forget("a")).toBe(true);
    expect(query.forget("a")).toBe(false);
    expect(query.isComplete).toBe(true);
  });
});
