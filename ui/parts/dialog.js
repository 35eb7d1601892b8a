// Questions before a change, and the result of the change.

import { html, useEffect, useRef, useState } from "../lib/html.js";

/**
 * Dialog with a form. `fields` are `{ id, label, value, min, max, hint }`,
   all numbers; `run(values)` makes the
 * change. `verb` is the text of the button, which says what happens.
 */
export function Dialog({ title, children, fields = [], verb, isDangerous, run, onClose }) {
  const ref = useRef(null);
  const [values, setValues] = useState(() => Object.fromEntries(fields.map(({ id, value }) => [id,
    value ?? ""])));
  const [state, setState] = useState({});
  useEffect(() => {
    ref.current.showModal();
  }, []);
  const submit = async (event) => {
    event.preventDefault();
    setState({ isRunning: true });
    try {
      await run(values);
      ref.current?.close();
    } catch (error) {
      setState({ error });
    }
  };
  return html`<dialog ref=${ref} onClose=${onClose} aria-labelledby="dialog-title">
    <form onSubmit=${submit}>
      <h2 id="dialog-title">${title}</h2>
      <div class="said">${children}</div>
      <div class="fields">${fields.map(({ id, label, hint, min = 0, max, type = "number" }) => html`<label class="field"
        key=${id}>
        <span>${label}</span>
        <input name=${id} type=${type} min=${min} max=${max} value=${values[id]} autocomplete="off"
          onInput=${(event) => setValues({ ...values, [id]: event.target.value })} />
        ${hint && html`<small>${hint}</small>`}
      </label>`)}</div>
      ${state.error && html`<p class="bad" role="alert">${state.error.message}
        ${state.error.hint && html`<br /><span>${state.error.hint}</span>`}</p>`}
      <div class="buttons">
        <button type="button" onClick=${() => ref.current.close()}>Cancel</button>
        <button type="submit" class=${isDangerous ? "danger" : "main"} disabled=${state.isRunning}>
          ${state.isRunning ? "…" : verb}
        </button>
      </div>
    </form>
  </dialog>`;
}

/** Number of a field, or nothing if it is empty. */
export const numberIn = (text) => (text === "" ? undefined : Number(text));
