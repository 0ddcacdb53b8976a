/** Requests to the server that the page came from: below its own path, with the token if there is one. */

/** An answer other than 2xx, in the server's words. */
export class ServerError extends Error {
  constructor(readonly status: number, message: string) {
    super(message);
  }
}

const KEY = "token";
let token = sessionStorage.getItem(KEY) ?? "";

export const hasToken = () => token !== "";

/** Keeps the token until the tab is closed. */
export function setToken(value: string) {
  token = value;
  sessionStorage.setItem(KEY, value);
}

export async function request(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (token) headers.set("Authorization", `Bearer ${token}`);
  const response = await fetch(path, { ...init, headers, cache: "no-store" });
  if (!response.ok) throw new ServerError(response.status, await wording(response));
  return response;
}

export const getJson = async <T>(path: string) => (await (await request(path)).json()) as T;

export const messageOf = (error: unknown) =>
  error instanceof ServerError ? error.message : `No answer from the server (${(error as Error).message}).`;

async function wording(response: Response): Promise<string> {
  const text = await response.text();
  try {
    return String(JSON.parse(text).error);
  } catch {
    return `${response.status} ${response.statusText}`; // of a proxy, whose page is not for here
  }
}
