"""Makes genbench's configuration groups available to other Hydra applications."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class GenbenchSearchPath(SearchPathPlugin):
    """Appends genbench's folder of YAML files to the search path of every Hydra application."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        from genbench.config import folder

        path = f"file://{folder()}"
        if all(element.path != path for element in search_path.get_path()):  # genbench's own command has it already
            search_path.append(provider="genbench", path=path)
