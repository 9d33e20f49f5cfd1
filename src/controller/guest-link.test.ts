import { duplexPair } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import { FakeGuest } from "../../test/support/fake-guest.js";
import { MAX_LINE_BYTES } from "../protocol/messages.js";
import { GuestLink, type GuestLinkOptions } from "./guest-link.js";

const links: GuestLink[] = [];
afterEach(async () => {
  await Promise.all(links.splice(0).map((l) => l.stop()));
});

function linkTo(guest: FakeGuest, options: Partial<GuestLinkOptions> = {}): GuestLink {
  const link = new GuestLink({
    vm: guest.vm,
    dial: async () => {
      const [ours, theirs] = duplexPair();
      guest.serve(theirs);
      return ours;
    },
    helloEveryMs: 20,
    silenceMs: 100,
    redialMs: 5,
    ...options,
  });
  links.push(link);
  return link.start();
}

const soon = () => AbortSignal.timeout(1000);

describe("guest link", () => {
  it("repeats its hello until the agent answers, under one session", async () => {
    const guest = new FakeGuest("vm1");
    guest.mute = true;
    const link = linkTo(guest);
    await expect(link.ready(AbortSignal.timeout(60))).rejects.toMatchObject({ exit: "unreachable" });
    guest.mute = false;
    await expect(link.ready(soon())).resolves.toMatchObject({ hostname: "vm1" });
    expect(guest.session).toMatch(/^[0-9a-f]{32}$/);
  });

  it("takes a new session and tells the level again after each reconnect and each restart of the agent", async () => {
    const guest = new FakeGuest("vm1");
    const want = { type: "want", job: "j", cycle: 1, step: 1, phase: "park", quietComplete: false } as const;
    const link = linkTo(guest, { level: () => [want] });
    await link.ready(soon());
    const first = guest.session;
    guest.drop();
    await expect.poll(() => guest.session !== first && link.hello !== undefined).toBe(true);
    const second = guest.session;
    guest.restart();
    await expect.poll(() => guest.session.length === 32 && guest.session !== second).toBe(true);
    await expect.poll(() => guest.wants.length).toBe(1);
  });

  it("gives a guest that answers slowly the time it needs", async () => {
    const guest = new FakeGuest("vm1");
    guest.answerMs = 300; // three times what the link takes for silence
    const link = linkTo(guest);
    await link.ready(soon());
    const sessions = new Set<string>();
    link.on("hello", () => sessions.add(guest.session));
    await expect(link.query(AbortSignal.timeout(5000))).resolves.toMatchObject({ type: "state" });
    expect(sessions.size).toBeLessThan(4);
  });

  it("quarantines a guest after three lines over the cap, and says so", async () => {
    const guest = new FakeGuest("vm1");
    const link = linkTo(guest);
    await link.ready(soon());
    const told: string[] = [];
    link.on("quarantined", (error) => told.push(error.message));
    for (let i = 0; i < 3; i++) guest.raw(`${"x".repeat(MAX_LINE_BYTES + 1)}\n`);
    await expect.poll(() => told).toHaveLength(1);
    expect(told[0]).toContain("3 lines over 262144 bytes");
    await expect(link.ready(soon())).rejects.toMatchObject({ exit: "unreachable" });
  });

  it("quarantines after a hundred bad lines, not after ten", async () => {
    const guest = new FakeGuest("vm1");
    const link = linkTo(guest);
    await link.ready(soon());
    guest.raw("bad\n".repeat(10));
    await sleep(20);
    expect(link.quarantined).toBeUndefined();
    guest.raw("bad\n".repeat(90));
    await expect.poll(() => link.quarantined?.message).toContain("100 bad lines");
  });

  it("drops lines of another session", async () => {
    const guest = new FakeGuest("vm1");
    const link = linkTo(guest);
    await link.query(soon());
    let states = 0;
    link.on("state", () => states++);
    const state = { type: "state", session: "e".repeat(32), seq: 9, answer: 0, jobs: [], devices: [] };
    guest.raw(`${JSON.stringify({ ...state, released: true, holders: [], hookError: "" })}\n`);
    await sleep(20);
    expect(states).toBe(0);
    expect(link.quarantined).toBeUndefined();
  });

  it("stop is idempotent and ends the connection", async () => {
    const guest = new FakeGuest("vm1");
    const link = linkTo(guest);
    await link.ready(soon());
    await link.stop();
    await link.stop();
    expect(link.quarantined).toBeUndefined();
  });
});
