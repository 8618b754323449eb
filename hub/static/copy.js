// Copy buttons: shown only where the clipboard can be written.
export function addCopyButtons(root) {
  if (!navigator.clipboard) return;
  for (const button of root.querySelectorAll("[data-copy][hidden]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const text = button.parentElement.querySelector("code").textContent;
      let said = "Copied";
      try {
        await navigator.clipboard.writeText(text);
      } catch {
        said = "Press Ctrl+C";
        getSelection().selectAllChildren(button.parentElement.querySelector("code"));
      }
      button.textContent = said;
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
}
