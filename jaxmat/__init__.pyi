from jaxmat.bundles.predict import Forecast as Forecast
from jaxmat.bundles.trained import TrainedModel as TrainedModel
from jaxmat.bundles.trained import load as load
from jaxmat.errors import UserError as UserError
from jaxmat.experiments.fit import fit as fit

__version__: str
