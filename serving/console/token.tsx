/** The form for a bearer token. */
import { useState } from "preact/hooks";
import { setToken } from "./api";

export function TokenForm({ onToken }: { onToken: () => void }) {
  const [value, setValue] = useState("");
  const send = (event: Event) => {
    event.preventDefault();
    setToken(value.trim());
    onToken();
  };
  return (
    <form class="row" onSubmit={send}>
      <label>
        Token
        <input type="password" autocomplete="off" required value={value} onInput={(event) => setValue(event.currentTarget.value)} />
      </label>
      <button>Use the token</button>
      <p class="hint">This tab keeps it until it is closed.</p>
    </form>
  );
}
