// What happens in the browser: clicks and keys go to Python through the model with the tag "causalunet-inbox".
window.causalunetExplore ??= (() => {
  const models = function* () {
    for (const doc of Bokeh.documents) yield* doc.all_models ?? doc._all_models.values();
  };
  const tagged = (tag) => [...models()].filter((model) => (model.tags ?? []).includes(tag));
  let count = 0;

  const send = (message) => {
    for (const inbox of tagged("causalunet-inbox")) inbox.value = `${++count} ${message}`;
  };

  const keys = {
    ArrowRight: "move start 1", ArrowLeft: "move start -1", ArrowDown: "move sample 1", ArrowUp: "move sample -1",
    PageDown: "move depth 1", PageUp: "move depth -1",
  };
  const listen = () => {
    document.addEventListener("keydown", pressed);
    window.addEventListener("popstate", () => send(`open ${location.search}`)); // the browser goes back, or forward
  };
  const pressed = (event) => {
    const at = event.composedPath()[0];
    const typing = at instanceof Element && at.closest("input, select, textarea, .noUi-handle, .scroll, pre, [role=radio]");
    if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
    const message = keys[event.key] ?? (/^[1-9]$/.test(event.key) ? `view ${event.key}` : undefined);
    if (message === undefined) return;
    event.preventDefault();
    send(message);
  };

  const save = (blob, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  const picture = async (type, name) => {
    for (const model of tagged("causalunet-figure")) {
      const view = Bokeh.index.find_one(model);
      if (view != null) save(await view.export(type).to_blob(), `${name}.${type}`);
    }
  };

  const copy = async (text) => {
    if (navigator.clipboard !== undefined) return navigator.clipboard.writeText(text);
    const area = document.createElement("textarea"); // where the page is not from this machine, nor encrypted
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  };

  const theme = () => {
    const query = new URLSearchParams(location.search);
    const dark = query.get("theme") === "dark";
    localStorage.setItem("causalunet-theme", dark ? "light" : "dark");
    query.set("theme", dark ? "light" : "dark");
    location.search = query.toString();
  };

  return {send, listen, picture, copy, theme};
})();
