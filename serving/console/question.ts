/** One request to a model, and its answer. */
import { request } from "./api";
import { Signature, Signatures, Target, givesLabels, pathOf, quote, takesImage } from "./models";

/** What the person asks: an image for a signature that takes one, else the text of a JSON body. */
export interface Question {
  model: string;
  signature: string;
  method: string;
  image?: Blob;
  body: string;
}

export interface Answer {
  text: string;
  milliseconds: number;
  version: string;
  bars: Bar[];
}

export interface Bar {
  label: string;
  score: number;
}

export const methodForImage = (signature: Signature) => (givesLabels(signature) ? "classify" : "predict");

export const wantsImage = (name: string, all: Signatures) => name in all && takesImage(all[name]!, all);

/** The address that a question is sent to. */
export function addressOf({ model, signature, method, image }: Question, target: Target): string {
  const query = image ? `?signature_name=${quote(signature)}` : "";
  return `${pathOf(model, target)}:${method}${query}`;
}

/** A body that fits a signature, and the method that answers it. */
export async function getExample(model: string, target: Target, signature: string) {
  const response = await request(`${pathOf(model, target)}/example?signature_name=${quote(signature)}`);
  const method = /:(\w+)>/.exec(response.headers.get("Link") ?? "")?.[1] ?? "predict";
  return { body: (await response.text()).trim(), method };
}

export async function ask(question: Question, target: Target): Promise<Answer> {
  const { image, body } = question;
  const type = image ? image.type || "image/*" : "application/json";
  const start = performance.now();
  const response = await request(addressOf(question, target), {
    method: "POST", headers: { "Content-Type": type }, body: image ?? body,
  });
  const text = await response.text();
  const milliseconds = performance.now() - start;
  return { text, milliseconds, version: response.headers.get("X-Model-Version") ?? "", bars: barsOf(text) };
}

/** The best five classes of an answer about one image; none if that is not what it holds. */
export function barsOf(text: string): Bar[] {
  const { results, predictions } = parsed(text);
  const rows = results ?? predictions;
  if (!Array.isArray(rows) || rows.length !== 1) return [];
  const row: unknown = rows[0];
  const pairs = results ? (row as [string, number][]) : Object.entries(scoresOf(row));
  if (!Array.isArray(pairs)) return []; // of Regress
  const bars = pairs.map(([label, score]) => ({ label: results ? label || "(no label)" : `class ${label}`, score }));
  return bars.sort((one, other) => other.score - one.score).slice(0, 5);
}

function parsed(text: string): { results?: unknown; predictions?: unknown } {
  try {
    return JSON.parse(text);
  } catch {
    return {}; // NaN and Infinity, which TensorFlow Serving writes too
  }
}

/** The list of numbers in a row: the row itself, or its only value of that kind. */
function scoresOf(row: unknown): number[] {
  const values = Array.isArray(row) ? [row] : Object.values((row ?? {}) as object);
  const lists = values.filter((each) => Array.isArray(each) && each.length > 1 && each.every(Number.isFinite));
  return lists.length === 1 ? lists[0] : [];
}
