/** Rates from two readings of /metrics. */
import { request } from "./api";

/** Totals since the server started, for one model. */
export interface Reading {
  seconds: number;
  requests: number;
  errors: number;
  latencySum: number;
  latencyCount: number;
}

/** What happened between two readings; no latency if nothing was answered. */
export interface Point {
  rate: number;
  errors: number;
  latency: number | null;
}

export async function read(model: string): Promise<Reading> {
  const response = await request("metrics", { headers: { Accept: "text/plain" } });
  return parse(await response.text(), model, performance.now() / 1000);
}

export function parse(text: string, model: string, seconds: number): Reading {
  const reading = { seconds, requests: 0, errors: 0, latencySum: 0, latencyCount: 0 };
  for (const [, name, labels, number] of text.matchAll(/^tensorflow_serving_request_(\w+)\{(.*)\} (\S+)$/gm)) {
    if (labelOf(labels!, "model") !== model) continue;
    const value = Number(number);
    if (name === "latency_sum") reading.latencySum += value;
    if (name === "latency_count") reading.latencyCount += value;
    if (name !== "count_total") continue;
    reading.requests += value;
    if (labelOf(labels!, "status") !== "OK") reading.errors += value;
  }
  return reading;
}

export function between(earlier: Reading, later: Reading): Point {
  const seconds = later.seconds - earlier.seconds;
  const answered = later.latencyCount - earlier.latencyCount;
  return {
    rate: Math.max(0, later.requests - earlier.requests) / seconds, // a restart begins at 0
    errors: Math.max(0, later.errors - earlier.errors) / seconds,
    latency: answered > 0 ? (later.latencySum - earlier.latencySum) / answered / 1000 : null,
  };
}

function labelOf(labels: string, name: string): string | undefined {
  const found = new RegExp(`(?:^|,)${name}="((?:[^"\\\\]|\\\\.)*)"`).exec(labels)?.[1];
  return found?.replace(/\\(.)/g, (_, character) => (character === "n" ? "\n" : character));
}
