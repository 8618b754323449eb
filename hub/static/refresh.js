// Parts of a page marked data-refresh are fetched again while something on the page is data-active.
// The server renders; this only swaps elements with the same id, keeping what the visitor ticked.
const PAUSE = 2500;

export async function refresh(texts = []) {
  // A page that answers a form is found under its own address.
  const address = document.querySelector("[data-page]")?.dataset.page ?? location.href;
  const response = await fetch(address, { headers: { Accept: "text/html" } });
  if (!response.ok) return null;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const old of document.querySelectorAll("[data-refresh][id]")) {
    const fresh = page.getElementById(old.id);
    if (fresh) swap(old, fresh);
  }
  for (const id of texts) {
    const fresh = page.getElementById(id);
    if (fresh) document.getElementById(id).textContent = fresh.textContent;
  }
  return page;
}

function swap(old, fresh) {
  const made = document.adoptNode(fresh);
  const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
  for (const field of old.querySelectorAll("input[id], select[id]")) {
    const twin = made.querySelector(`#${CSS.escape(field.id)}`);
    if (!twin) continue;
    if (field.type === "checkbox") twin.checked = field.checked;
    else twin.value = field.value;
  }
  const boxes = [...made.querySelectorAll("details")];
  [...old.querySelectorAll("details")].forEach((box, at, all) => {
    const twin = box.id ? boxes.find((one) => one.id === box.id) : boxes.length === all.length && boxes[at];
    if (twin) twin.open = box.open;
  });
  if (made.isEqualNode(old)) return;
  old.replaceWith(made);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  made.dispatchEvent(new Event("refreshed", { bubbles: true }));
}

export function keepFresh() {
  async function look() {
    if (!document.querySelector("[data-active]")) return;
    if (!document.hidden) {
      try {
        await refresh();
      } catch {
        // The hub is away for a moment: look again later.
      }
    }
    setTimeout(look, PAUSE);
  }
  setTimeout(look, PAUSE);
}
