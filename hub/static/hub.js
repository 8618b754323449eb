// Every page works without scripts; these make it livelier. Nothing here builds HTML from text.
import { addCopyButtons } from "./copy.js";
import { followJob } from "./job.js";
import { keepFresh } from "./refresh.js";
import { planRequest } from "./request.js";

addCopyButtons(document);
document.addEventListener("refreshed", (event) => addCopyButtons(event.target));
for (const field of document.querySelectorAll("[data-submit]")) {
  field.addEventListener("change", () => field.form.requestSubmit());
}
for (const form of document.querySelectorAll("[data-request]")) planRequest(form);
const job = document.querySelector("[data-job]");
if (job) followJob(job);
else keepFresh();
