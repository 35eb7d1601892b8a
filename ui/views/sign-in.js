// Form in which a person signs in with a token.

import { html, useState } from "../lib/html.js";
import { signIn } from "../lib/session.js";

export function SignIn({ canClose, onClose }) {
  const [token, setToken] = useState("");
  const [error, setError] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    setError(null);
    try {
      await signIn(token.trim());
    } catch (refused) {
      setError(refused);
    }
  };
  return html`<section class="sign-in">
    <h1>Sign in</h1>
    <p>This cluster is locked. Sign in with your token; an admin makes one with${" "}
      <code>stormkeeper token new NAME --role ROLE</code>.</p>
    <form onSubmit=${submit}>
      <label class="field"><span>Token</span>
        <input type="password" name="token" value=${token} autocomplete="current-password" required autofocus
          onInput=${(event) => setToken(event.target.value)} /></label>
      ${error && html`<p class="bad"
        role="alert">${error.message}${error.hint && html`<br />${error.hint}`}</p>`}
      <div class="buttons">
        ${canClose && html`<button type="button" onClick=${onClose}>Cancel</button>`}
        <button type="submit" class="main">Sign in</button>
      </div>
    </form>
    <p class="quiet">The token stays in a cookie that scripts cannot read,
      until you sign out or close the browser.</p>
  </section>`;
}
